//! Metrics as data.

use metrics::Unit;

/// One metric of a program.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// With the unit's suffix: `_seconds`, `_bytes`, `_ratio`, `_size`, `_total`, `_info`.
    pub name: &'static str,
    /// How it moves.
    pub kind: Kind,
    /// A base unit.
    pub unit: Unit,
    /// One or two sentences.
    pub help: &'static str,
    /// What it is divided by. Never a person, a device or a conversation.
    pub labels: &'static [Label],
    /// Set if it stays at zero unless something goes wrong: what that is.
    pub only_when: Option<&'static str>,
}

/// How a metric moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Up.
    Counter,
    /// Up and down.
    Gauge,
    /// Into buckets.
    Histogram,
}

/// A label and what it may say.
#[derive(Debug, Clone, Copy)]
pub struct Label {
    /// In snake case.
    pub name: &'static str,
    /// All that it may say.
    pub values: Values,
}

/// What a label may say.
#[derive(Debug, Clone, Copy)]
pub enum Values {
    /// These, each shown as zero from the start.
    These(&'static [&'static str]),
    /// One of a set that is bounded elsewhere: by what, for the reader.
    Within(&'static str),
}

impl Label {
    /// A label with these values.
    pub const fn these(name: &'static str, values: &'static [&'static str]) -> Self {
        Self { name, values: Values::These(values) }
    }

    /// A label whose values are bounded elsewhere.
    pub const fn within(name: &'static str, bound: &'static str) -> Self {
        Self { name, values: Values::Within(bound) }
    }
}

impl Metric {
    /// Counts events.
    pub const fn counter(name: &'static str, help: &'static str) -> Self {
        Self::new(name, Kind::Counter, Unit::Count, help)
    }

    /// A count at this moment.
    pub const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self::new(name, Kind::Gauge, Unit::Count, help)
    }

    /// How long something takes.
    pub const fn seconds(name: &'static str, help: &'static str) -> Self {
        Self::new(name, Kind::Histogram, Unit::Seconds, help)
    }

    /// How many things come together.
    pub const fn sizes(name: &'static str, help: &'static str) -> Self {
        Self::new(name, Kind::Histogram, Unit::Count, help)
    }

    const fn new(name: &'static str, kind: Kind, unit: Unit, help: &'static str) -> Self {
        Self { name, kind, unit, help, labels: &[], only_when: None }
    }

    /// In another unit than a count.
    #[must_use]
    pub const fn in_unit(mut self, unit: Unit) -> Self {
        self.unit = unit;
        self
    }

    /// Divided by labels.
    #[must_use]
    pub const fn by(mut self, labels: &'static [Label]) -> Self {
        self.labels = labels;
        self
    }

    /// At zero unless this happens.
    #[must_use]
    pub const fn only_when(mut self, what: &'static str) -> Self {
        self.only_when = Some(what);
        self
    }

    /// Every combination of listed label values; none if a label's values are not listed.
    pub fn combinations(&self) -> Vec<Vec<(&'static str, &'static str)>> {
        let mut all = vec![Vec::new()];
        for label in self.labels {
            let Values::These(values) = label.values else { return Vec::new() };
            let with = |one: &Vec<(&'static str, &'static str)>| {
                let one = one.clone();
                values.iter().map(move |value| {
                    let mut longer = one.clone();
                    longer.push((label.name, *value));
                    longer
                })
            };
            all = all.iter().flat_map(with).collect();
        }
        all
    }

    /// A line of docs/metrics.md.
    pub fn row(&self) -> String {
        let labels: Vec<_> = self.labels.iter().map(Label::shown).collect();
        let kind = match self.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let unit = match self.unit {
            Unit::Seconds => "seconds",
            Unit::Bytes => "bytes",
            _ if self.name.ends_with("_ratio") => "ratio",
            _ => "count",
        };
        let when = self.only_when.map(|what| format!(" Zero unless {what}.")).unwrap_or_default();
        format!("| `{}` | {kind} | {unit} | {} | {}{when} |\n", self.name, labels.join("; "), self.help)
    }
}

impl Label {
    fn shown(&self) -> String {
        match self.values {
            Values::These(values) => format!("`{}`: {}", self.name, values.join(", ")),
            Values::Within(bound) => format!("`{}`: {bound}", self.name),
        }
    }
}
