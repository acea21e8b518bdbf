//! Reads `tests/vectors/*.hex`.
//!
//! A file is named `<direction>-<number>-<name>.hex`. A line holds hexadecimal and, after `;`, what it
//! means. The line that begins with `;=` is what the frame decodes to.

use std::{fs, path::Path};

/// One file.
#[derive(Debug)]
pub(crate) struct Vector {
    /// The file's name.
    pub(crate) file: String,
    /// `client`, `server`, `bus` or `fleet`.
    pub(crate) direction: String,
    /// The frame's number.
    pub(crate) number: u16,
    /// What the file says that it decodes to.
    pub(crate) decoded: String,
    /// The frame.
    pub(crate) bytes: Vec<u8>,
}

/// All files, in the order of their names.
pub(crate) fn load() -> Vec<Vector> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let mut files: Vec<_> =
        fs::read_dir(folder).expect("the folder of vectors").flatten().map(|entry| entry.path()).collect();
    files.sort();
    files.iter().map(|path| read(path)).collect()
}

fn read(path: &Path) -> Vector {
    let file = path.file_name().expect("a file").to_str().expect("ASCII").to_owned();
    let mut parts = file.splitn(3, '-');
    let direction = parts.next().expect("a direction").to_owned();
    let number = parts.next().and_then(|number| number.parse().ok()).expect("a number");
    let text = fs::read_to_string(path).expect("readable");
    let decoded =
        text.lines().find_map(|line| line.strip_prefix(";= ")).expect("a line with `;=`").to_owned();
    let digits: String = text.lines().flat_map(|line| line.split(';').next()).collect();
    let digits: String = digits.split_whitespace().collect();
    let bytes = hex::decode(&digits).unwrap_or_else(|error| panic!("{file}: {error}"));
    Vector { file, direction, number, decoded, bytes }
}
