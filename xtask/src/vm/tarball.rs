//! Jobs into a guest and results out of it: bare tars on disks.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tar::{Archive, Builder, Header};

/// Name, in the results, of the file that holds the exit code.
const EXIT: &str = ".exit";

/// Writes a job's files and its command to `disk`.
pub(super) fn pack(disk: &Path, files: &[(PathBuf, String)], command: &str) -> Result<()> {
    let mut tar = Builder::new(BufWriter::new(File::create(disk)?));
    tar.follow_symlinks(false);
    for (host, guest) in files {
        let guest = guest.trim_start_matches('/');
        let added = if host.is_dir() {
            tar.append_dir_all(guest, host)
        } else {
            append_file(&mut tar, host, guest)
        };
        added.with_context(|| format!("could not pack {}", host.display()))?;
    }
    let mut header = Header::new_gnu();
    header.set_size(command.len() as u64);
    header.set_mode(0o755);
    tar.append_data(&mut header, "job/command", command.as_bytes())?;
    tar.into_inner()?
        .into_inner()?
        .sync_all()
        .context("could not write the job")
}

/// A file named for a job is meant by its content: links to it are followed.
fn append_file(tar: &mut Builder<BufWriter<File>>, host: &Path, guest: &str) -> std::io::Result<()> {
    tar.append_path_with_name(host.canonicalize()?, guest)
}

/// Unpacks the results on `disk` into `folder` and returns the command's exit code.
pub(super) fn unpack(disk: &Path, folder: &Path) -> Result<i32> {
    Archive::new(File::open(disk)?).unpack(folder)?;
    let code = std::fs::read_to_string(folder.join(EXIT)).context("no exit code among the results")?;
    Ok(code.trim().parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_out() {
        let folder = tempfile::tempdir().unwrap();
        let (disk, out) = (folder.path().join("disk"), folder.path().join("out"));
        std::fs::write(folder.path().join(EXIT), "7\n").unwrap();
        let files = [(folder.path().join(EXIT), format!("/{EXIT}"))];
        pack(&disk, &files, "true").unwrap();
        assert_eq!(std::fs::metadata(&disk).unwrap().len() % 512, 0);
        assert_eq!(unpack(&disk, &out).unwrap(), 7);
        assert_eq!(std::fs::read_to_string(out.join("job/command")).unwrap(), "true");
    }

    #[test]
    fn an_empty_disk_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let disk = folder.path().join("disk");
        File::create(&disk).unwrap().set_len(4096).unwrap();
        assert!(unpack(&disk, &folder.path().join("out")).is_err());
    }
}
