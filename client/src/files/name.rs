//! Names from others, made into names of files.

use crate::terminal::is_unsafe;

/// Limit: bytes of a name. File systems have 255, and a number or a suffix may be added.
pub const MAX_NAME: usize = 180;
/// Limit: bytes of what is kept of an ending when a name is cut.
const MAX_ENDING: usize = 16;
/// What a file is called whose name has nothing left.
const NAMELESS: &str = "file";
/// Names that are devices on Windows, whatever follows the first dot.
const DEVICES: [&str; 6] = ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"];

/// The name of a file, whatever was sent as such: one component that can be written on any file system,
/// hides nothing, looks like no option, and reads in one direction. At most [`MAX_NAME`] bytes, never
/// empty; a name that is safe stays as it is.
pub fn safe_name(name: &str) -> String {
    let kept: String = name.chars().filter_map(kept).collect();
    let cut = shorten(ends_trimmed(&kept));
    match cut.is_empty() {
        true => NAMELESS.to_owned(),
        false if is_device(cut.as_str()) => format!("_{cut}"),
        false => cut,
    }
}

/// What becomes of a character: nothing, a blank, a line, or itself.
fn kept(c: char) -> Option<char> {
    match c {
        '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|' => Some('_'),
        c if c.is_whitespace() => Some(' '),
        c if is_unsafe(c) => None,
        c => Some(c),
    }
}

/// Without what hides a file or makes an option of it in front, and without what Windows drops behind.
fn ends_trimmed(name: &str) -> &str {
    name.trim_start_matches(['.', '-', ' ']).trim_end_matches(['.', ' '])
}

/// At most [`MAX_NAME`] bytes; a short ending is kept.
fn shorten(name: &str) -> String {
    // One byte is kept for the line in front of a device's name.
    const MOST: usize = MAX_NAME - 1;
    if name.len() <= MOST {
        return name.to_owned();
    }
    let ending = name.rfind('.').map(|at| &name[at..]).filter(|ending| ending.len() <= MAX_ENDING);
    let ending = ending.unwrap_or_default();
    let stem = &name[..name.floor_char_boundary(MOST - ending.len())];
    let cut = format!("{}{ending}", stem.trim_end_matches(['.', ' ']));
    ends_trimmed(&cut).to_owned()
}

fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end().to_uppercase();
    let numbered = |word: &str| {
        let mut rest = stem.strip_prefix(word).unwrap_or_default().chars();
        matches!((rest.next(), rest.next()), (Some('0'..='9' | '¹' | '²' | '³'), None))
    };
    DEVICES.contains(&stem.as_str()) || numbered("COM") || numbered("LPT")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::{Component, Path};

    #[test]
    fn what_becomes_of_names() {
        for (name, want) in [
            ("photo.jpg", "photo.jpg"),
            ("Übersicht 2026 (1).pdf", "Übersicht 2026 (1).pdf"),
            ("../../etc/passwd", "_.._etc_passwd"),
            ("/etc/passwd", "_etc_passwd"),
            ("C:\\Windows\\x.dll", "C__Windows_x.dll"),
            ("..", "file"),
            ("", "file"),
            (" . ", "file"),
            ("-rf", "rf"),
            (".bashrc", "bashrc"),
            ("a\0b\u{1b}[31mc\nd", "ab[31mc d"),
            ("photo\u{202e}gpj.exe", "photogpj.exe"),
            ("x.txt. . ", "x.txt"),
            ("con", "_con"),
            ("LPT1.txt", "_LPT1.txt"),
            ("Com² .log", "_Com² .log"),
            ("company.txt", "company.txt"),
            ("nul.tar.gz", "_nul.tar.gz"),
        ] {
            assert_eq!(safe_name(name), want, "{name:?}");
        }
        let long = safe_name(&format!("{}.tar", "ü".repeat(300)));
        assert!(long.ends_with("ü.tar") && long.len() <= MAX_NAME, "{long}");
        let dots = safe_name(&format!("a.{}", "b".repeat(400)));
        assert_eq!(dots.len(), MAX_NAME - 1);
    }

    /// Whether a name can only be a file in the folder where it is used.
    fn check(name: &str) {
        let safe = safe_name(name);
        let mut parts = Path::new(&safe).components();
        let (first, more) = (parts.next(), parts.next());
        assert!(matches!(first, Some(Component::Normal(part)) if part == safe.as_str()), "{name:?} {safe:?}");
        assert!(more.is_none() && safe.len() <= MAX_NAME, "{name:?} {safe:?}");
        assert!(!safe.chars().any(|c| is_unsafe(c) || "/\\:*?\"<>|".contains(c)), "{safe:?}");
        assert!(!safe.starts_with(['.', '-', ' ']) && !safe.ends_with(['.', ' ']), "{safe:?}");
        assert!(!is_device(&safe), "{safe:?}");
        assert_eq!(safe_name(&safe), safe, "not stable");
    }

    proptest! {
        #[test]
        fn every_name_becomes_one_component(name in any::<String>()) {
            check(&name);
        }

        #[test]
        fn so_does_every_name_of_what_is_dangerous(
            name in "[./\\\\:\u{0}\u{1b}\u{202e} \\-~a-cCONnulprt0-9¹ü\u{200b}\n]{0,400}"
        ) {
            check(&name);
        }
    }
}
