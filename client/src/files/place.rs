//! Where received files go.
//!
//! - A file grows as `NAME.part-ID` beside its target and gets its name when it is whole and checked.
//! - Nothing that is there is overwritten: `name (1).ext`.
//! - Files are for their owner alone. A link that somebody has put where the file goes is not followed.

use super::name::safe_name;
use rustix::fs::{OFlags, RenameFlags};
use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Limit: files of one name in a folder.
const MAX_SAME: u32 = 10_000;

/// The place of a file that is being received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    folder: PathBuf,
    name: String,
    part: PathBuf,
}

impl Place {
    /// For a file that its sender calls `name`. `id` tells downloads of one name apart.
    pub fn new(folder: &Path, name: &str, id: &str) -> Self {
        let name = safe_name(name);
        let part = folder.join(format!("{name}.part-{}", safe_name(id)));
        Self { folder: folder.to_owned(), name, part }
    }

    /// Where it grows.
    pub fn part(&self) -> &Path {
        &self.part
    }

    /// Opens what is there of it, or makes it.
    pub fn open(&self) -> io::Result<File> {
        let flags = (OFlags::NOFOLLOW | OFlags::CLOEXEC).bits();
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.custom_flags(flags.cast_signed()).open(&self.part)?;
        let found = file.metadata()?;
        // A pipe would block, and a second name would let somebody else see what is written.
        match found.is_file() && found.nlink() == 1 {
            true => Ok(file),
            false => Err(io::Error::other("something else is there than a file of ours")),
        }
    }

    /// Gives it its name, or the next that is free. The folder keeps it after a power cut, too.
    pub fn settle(&self) -> io::Result<PathBuf> {
        for number in 0..MAX_SAME {
            let target = self.folder.join(numbered(&self.name, number));
            match rename(&self.part, &target) {
                Ok(()) => {
                    File::open(&self.folder)?.sync_all()?;
                    return Ok(target);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other(format!("there are {MAX_SAME} files of this name already")))
    }

    /// Removes what is there of it.
    pub fn discard(&self) {
        let _ = fs::remove_file(&self.part);
    }
}

/// Renames, unless something is there.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let cwd = rustix::fs::CWD;
    match rustix::fs::renameat_with(cwd, from, cwd, to, RenameFlags::NOREPLACE) {
        // Not every file system can.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            fs::hard_link(from, to)?;
            fs::remove_file(from)
        }
        other => Ok(other?),
    }
}

/// `name (1).ext`
fn numbered(name: &str, number: u32) -> String {
    if number == 0 {
        return name.to_owned();
    }
    match name.rfind('.').filter(|at| *at > 0) {
        Some(at) => format!("{} ({number}){}", &name[..at], &name[at..]),
        None => format!("{name} ({number})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::BTreeSet, io::Write, os::unix::fs::symlink};

    fn receive(folder: &Path, name: &str, id: &str, bytes: &[u8]) -> io::Result<PathBuf> {
        let place = Place::new(folder, name, id);
        place.open()?.write_all(bytes)?;
        place.settle()
    }

    /// Everything below a folder, without following links.
    fn walk(folder: &Path, found: &mut BTreeSet<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if fs::symlink_metadata(&path).unwrap().is_dir() {
                walk(&path, found);
            }
            found.insert(path);
        }
    }

    fn hostile() -> Vec<String> {
        let roots = [
            "",
            "/",
            "../",
            "..\\",
            "./",
            "~/",
            "C:\\",
            "\\\\host\\share\\",
            "file://",
            "%2e%2e/",
            "\u{202e}",
            "-",
            " ",
            "\0",
        ];
        let middles = [
            "",
            "..",
            ".",
            "etc/passwd",
            "..\\..\\boot.ini",
            ".ssh/authorized_keys",
            "con",
            "x\0y",
            "a\nb",
            "\u{1b}[2J",
        ];
        let ends = ["", "/", ".", " ", "/..", "\0.png"];
        let mut names: Vec<String> = roots
            .iter()
            .flat_map(|root| {
                middles.iter().flat_map(move |middle| ends.map(|end| format!("{root}{middle}{end}")))
            })
            .take(490)
            .collect();
        names.extend([
            "../".repeat(80),
            "ü".repeat(400),
            "🎉".repeat(120),
            ".".repeat(300),
            "a/".repeat(500),
        ]);
        names.extend(
            ["aux.", "…/…", "．．／x", "x.part-1", "../../../../../../../../tmp/escaped"].map(str::to_owned),
        );
        names
    }

    #[test]
    fn five_hundred_hostile_names_stay_in_the_folder() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("a/b/downloads");
        fs::create_dir_all(&folder).unwrap();
        let names = hostile();
        assert_eq!(names.len(), 500);
        for (name, id) in names.iter().zip(0..) {
            let path = receive(&folder, name, &format!("{id:04}"), name.as_bytes()).unwrap();
            assert_eq!(path.parent(), Some(folder.as_path()), "{name:?}");
            assert_eq!(fs::read(&path).unwrap(), name.as_bytes(), "{name:?}");
        }
        let mut found = BTreeSet::new();
        walk(outer.path(), &mut found);
        let outside: Vec<_> =
            found.iter().filter(|path| path.is_file() && !path.starts_with(&folder)).collect();
        assert!(outside.is_empty(), "{outside:?}");
        let inside = found.iter().filter(|path| path.parent() == Some(&folder)).count();
        assert_eq!(
            (inside, found.len()),
            (500, 503),
            "each is one file in the folder, and nothing else is there"
        );
    }

    #[test]
    fn links_do_not_lead_out_and_nothing_is_overwritten() {
        let outer = tempfile::tempdir().unwrap();
        let (folder, prey) = (outer.path().join("downloads"), outer.path().join("prey"));
        fs::create_dir(&folder).unwrap();
        fs::write(&prey, "mine").unwrap();
        symlink(&prey, folder.join("x.txt")).unwrap();
        symlink(outer.path().join("nowhere"), folder.join("x (1).txt")).unwrap();
        assert_eq!(receive(&folder, "x.txt", "1", b"theirs").unwrap(), folder.join("x (2).txt"));
        assert_eq!(receive(&folder, "x.txt", "2", b"theirs").unwrap(), folder.join("x (3).txt"));
        // Where the part grows, too.
        symlink(&prey, folder.join("y.part-3")).unwrap();
        receive(&folder, "y", "3", b"theirs").unwrap_err();
        fs::hard_link(&prey, folder.join("z.part-4")).unwrap();
        receive(&folder, "z", "4", b"theirs").unwrap_err();
        assert_eq!(fs::read(&prey).unwrap(), b"mine");
        assert!(!outer.path().join("nowhere").exists());
        let mode = fs::metadata(folder.join("x (2).txt")).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn what_was_begun_is_gone_on_with() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::new(folder.path(), "a.bin", "id");
        place.open().unwrap().write_all(b"half").unwrap();
        assert_eq!(place.open().unwrap().metadata().unwrap().len(), 4);
        place.discard();
        assert!(!place.part().exists());
        assert_eq!(numbered("a.tar.gz", 2), "a.tar (2).gz");
    }
}
