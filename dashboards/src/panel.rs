//! What a dashboard is made of.

/// One dashboard: at most 25 panels, so that it can be read.
#[derive(Debug, Clone)]
pub struct Dashboard {
    /// Fixed: links and alerts point at it.
    pub uid: &'static str,
    /// In the list of dashboards.
    pub title: &'static str,
    /// What it answers.
    pub description: &'static str,
    /// A metric that every job of this dashboard has: the variables are made from its labels.
    pub of: &'static str,
    /// From top to bottom.
    pub rows: Vec<Row>,
}

/// Panels with a heading.
#[derive(Debug, Clone)]
pub struct Row {
    /// The heading.
    pub title: &'static str,
    /// From left to right; they wrap.
    pub panels: Vec<Panel>,
}

/// One picture.
#[derive(Debug, Clone)]
pub struct Panel {
    /// The heading.
    pub title: &'static str,
    /// What is shown, and what would be bad.
    pub description: &'static str,
    /// Of its values.
    pub unit: Unit,
    /// How it is drawn.
    pub view: View,
    /// What is asked.
    pub queries: Vec<Query>,
    /// Of the grid's 24 columns.
    pub width: u32,
    /// From which value on it is yellow and red; red below yellow means that less is worse.
    pub thresholds: Option<(f64, f64)>,
}

/// One question to Prometheus.
#[derive(Debug, Clone, Copy)]
pub struct Query {
    /// PromQL. `{@}` or `{@,more}` is filled in with the matchers of job and instance, `[@]` with
    /// Grafana's own interval.
    pub expr: &'static str,
    /// Labels in `{{}}`.
    pub legend: &'static str,
}

/// The unit of a panel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    Count,
    /// Things a second.
    PerSecond,
    /// 0 to 1, shown as a percentage.
    Ratio,
    /// A multiple.
    Times,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// Bytes a second.
    BytesPerSecond,
}

/// How a panel is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// Lines over time.
    Lines,
    /// Areas on each other over time.
    Stack,
    /// The last number, large.
    Stat,
    /// Buckets of a histogram over time.
    Heat,
}

impl Dashboard {
    /// Its file's name, without `.json`.
    pub fn file(&self) -> &'static str {
        self.uid.trim_start_matches("fastchat-")
    }

    /// All panels, in the order in which they are drawn.
    pub fn panels(&self) -> impl Iterator<Item = &Panel> {
        self.rows.iter().flat_map(|row| &row.panels)
    }
}

impl Panel {
    /// Lines over time.
    pub fn lines(title: &'static str, unit: Unit, description: &'static str) -> Self {
        Self::new(title, unit, description, View::Lines, 8)
    }

    /// Areas on each other over time.
    pub fn stack(title: &'static str, unit: Unit, description: &'static str) -> Self {
        Self::new(title, unit, description, View::Stack, 8)
    }

    /// One number.
    pub fn stat(title: &'static str, unit: Unit, description: &'static str) -> Self {
        Self::new(title, unit, description, View::Stat, 4)
    }

    /// A histogram over time.
    pub fn heat(title: &'static str, unit: Unit, description: &'static str) -> Self {
        Self::new(title, unit, description, View::Heat, 8)
    }

    fn new(title: &'static str, unit: Unit, description: &'static str, view: View, width: u32) -> Self {
        Self { title, description, unit, view, queries: Vec::new(), width, thresholds: None }
    }

    /// Asks one thing more.
    #[must_use]
    pub fn ask(mut self, expr: &'static str, legend: &'static str) -> Self {
        self.queries.push(Query { expr, legend });
        self
    }

    /// Is yellow from the first value on, red from the second.
    #[must_use]
    pub fn warn(mut self, yellow: f64, red: f64) -> Self {
        self.thresholds = Some((yellow, red));
        self
    }

    /// Takes so many of 24 columns.
    #[must_use]
    pub fn wide(mut self, columns: u32) -> Self {
        self.width = columns;
        self
    }

    /// Of the grid's lines.
    pub fn height(&self) -> u32 {
        if self.view == View::Stat { 4 } else { 8 }
    }
}

impl Unit {
    /// Grafana's name.
    pub fn id(self) -> &'static str {
        match self {
            Self::Count => "short",
            Self::PerSecond => "ops",
            Self::Ratio => "percentunit",
            Self::Times => "none",
            Self::Seconds => "s",
            Self::Bytes => "bytes",
            Self::BytesPerSecond => "Bps",
        }
    }
}
