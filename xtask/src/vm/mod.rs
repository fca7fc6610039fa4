//! Virtual machines: the same tests on kernels other than the one that runs here.
//!
//! A guest is a software-emulated machine with three disks: a root file system that forgets what is written to it, a job
//! handed in as a bare tar, and a place for results that come out as a bare tar. No network, no shared folder.

pub(crate) mod command;
mod emulator;
mod initramfs;
mod kernel;
mod root;
mod tarball;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cache::Cache;
use crate::{build, debian, shell};

pub(crate) use kernel::VERSIONS;

/// Room for results; the file is sparse.
const RESULTS_BYTES: u64 = 1 << 30;

/// Lines of the kernel's log that an error repeats.
const CONSOLE_TAIL: usize = 25;

/// What a guest's time is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Clock {
    /// The time that passes outside.
    Real,
    /// Its own instructions, a nanosecond each, whatever goes on outside; idle time takes none.
    Instructions,
}

/// A machine to be started.
#[derive(Debug, Clone)]
pub(crate) struct Guest {
    /// Kernel, such as `6.12`.
    pub(crate) kernel: String,
    /// Processors.
    pub(crate) cpus: u32,
    /// Memory in MiB.
    pub(crate) memory: u32,
    /// Further words for the kernel's command line, such as `preempt=full`.
    pub(crate) cmdline_extra: String,
    /// Kernel modules to load besides those of the disks.
    pub(crate) modules: Vec<String>,
    /// What its time is made of.
    pub(crate) clock: Clock,
    /// Folder of peers that the guest has at the same path, with the interpreters they need.
    pub(crate) peers: Option<PathBuf>,
}

/// What a guest is to do.
#[derive(Debug, Default)]
pub(crate) struct Job {
    /// Names the folder below `target/vm` that keeps logs and results.
    pub(crate) name: String,
    /// Files and folders of the host, each with its absolute path in the guest.
    pub(crate) files: Vec<(PathBuf, String)>,
    /// Shell text, run as root in `/job`; what it leaves in `/results` comes out.
    pub(crate) command: String,
    /// Bound on the whole run, boot included.
    pub(crate) timeout: Duration,
}

/// What came of a job.
#[derive(Debug)]
pub(crate) struct JobResult {
    /// The command's exit code.
    pub(crate) code: i32,
    /// Folder with the logs.
    pub(crate) folder: PathBuf,
    /// Folder with what the command left in `/results`.
    pub(crate) results: PathBuf,
}

impl Guest {
    /// A guest of two processors and 1 GiB on `kernel`.
    pub(crate) fn new(kernel: &str) -> Self {
        Self {
            kernel: kernel.to_owned(),
            cpus: 2,
            memory: 1024,
            cmdline_extra: String::new(),
            clock: Clock::Real,
            modules: Vec::new(),
            peers: None,
        }
    }

    /// Boots, runs the job, and powers off; the command's output goes to this terminal as it comes.
    pub(crate) fn run(&self, cache: &Cache, job: &Job) -> Result<JobResult> {
        install_programs()?;
        let kernel = kernel::provide(cache, &self.kernel)?;
        let root = root::provide(cache, self.peers.as_deref())?;
        let folder = fresh_folder(&job.name)?;
        let disks = Disks {
            root,
            job: folder.join("job.tar"),
            results: folder.join("results.tar"),
        };
        initramfs::write(&folder.join("initramfs"), &kernel, &self.modules)?;
        tarball::pack(&disks.job, &job.files, &job.command)?;
        File::create(&disks.results)?.set_len(RESULTS_BYTES)?;
        let mut qemu = emulator::provide(cache)?.command();
        self.describe(&mut qemu, &kernel, &disks, &folder);
        let machine = qemu
            .stdout(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()
            .context("could not start qemu")?;
        watch(machine, &folder, job.timeout)?;
        let results = folder.join("results");
        let code = tarball::unpack(&disks.results, &results)
            .with_context(|| format!("the guest ended without a result\n{}", console_tail(&folder)))?;
        fs::remove_file(&disks.results)?;
        fs::remove_file(&disks.job)?;
        Ok(JobResult { code, folder, results })
    }

    /// Tells the emulator what the machine is made of.
    fn describe(&self, qemu: &mut Command, kernel: &kernel::Kernel, disks: &Disks, folder: &Path) {
        let disk = |file: &Path, options: &str| format!("file={},if=virtio,format=raw{options}", file.display());
        // KVM guests hang on some nested machines, emulation works on all. Vectors of 256 bits are slow to emulate.
        qemu.args(["-cpu", "max,-avx", "-no-reboot", "-nodefaults", "-nic", "none"])
            .args([
                "-display",
                "none",
                "-smp",
                &self.cpus.to_string(),
                "-m",
                &self.memory.to_string(),
            ])
            .args(match self.clock {
                Clock::Real => ["-accel", "tcg,thread=multi"].as_slice(),
                Clock::Instructions => &["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off"],
            })
            .arg("-kernel")
            .arg(&kernel.image)
            .arg("-initrd")
            .arg(folder.join("initramfs"))
            // On a loaded machine the emulated timer may tick too late for the kernel's check of it.
            .args([
                "-append",
                &format!("console=ttyS0 quiet panic=-1 no_timer_check {}", self.cmdline_extra),
            ])
            .arg("-serial")
            .arg(format!("file:{}", folder.join("console.log").display()))
            .args(["-serial", "stdio"])
            .args(["-drive", &disk(&disks.root, ",snapshot=on")])
            .args(["-drive", &disk(&disks.job, ",readonly=on")])
            .args(["-drive", &disk(&disks.results, ",cache=unsafe")]);
    }
}

/// Files behind a guest's disks, in the order the guest sees them.
#[derive(Debug)]
struct Disks {
    root: PathBuf,
    job: PathBuf,
    results: PathBuf,
}

/// Provides everything that guests need, so that later runs need no network.
pub(crate) fn provide(cache: &Cache, peers: Option<&Path>) -> Result<()> {
    install_programs()?;
    emulator::provide(cache)?;
    for version in VERSIONS {
        kernel::provide(cache, version)?;
    }
    root::provide(cache, peers).map(drop)
}

fn install_programs() -> Result<()> {
    let needed = [
        ("busybox", "busybox-static"),
        ("depmod", "kmod"),
        ("debootstrap", "debootstrap"),
        ("mke2fs", "e2fsprogs"),
        ("xz", "xz-utils"),
        ("zstd", "zstd"),
    ];
    let missing: Vec<_> = needed
        .iter()
        .filter(|(program, _)| shell::find(program).is_none())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
    debian::install(&packages, "virtual machines run the tests on other kernels")
}

fn fresh_folder(name: &str) -> Result<PathBuf> {
    let folder = build::target_folder().join("vm").join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Passes the job's output on, to this terminal and to `output.log`, until the machine ends or its time is over.
fn watch(mut machine: Child, folder: &Path, timeout: Duration) -> Result<()> {
    let mut output = machine.stdout.take().expect("the output is piped");
    let mut log = File::create(folder.join("output.log"))?;
    let copy = std::thread::spawn(move || -> Result<()> {
        let mut buffer = [0; 4096];
        loop {
            let length = output.read(&mut buffer)?;
            if length == 0 {
                return Ok(());
            }
            log.write_all(&buffer[..length])?;
            let mut terminal = std::io::stdout().lock();
            terminal.write_all(&buffer[..length])?;
            terminal.flush()?;
        }
    });
    let deadline = Instant::now() + timeout;
    let status = loop {
        if let Some(status) = machine.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            machine.kill()?;
            machine.wait()?;
            bail!(
                "the guest did not end within {} s\n{}",
                timeout.as_secs(),
                console_tail(folder)
            );
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    copy.join().expect("copying output does not panic")?;
    if !status.success() {
        bail!("qemu failed ({status})");
    }
    Ok(())
}

fn console_tail(folder: &Path) -> String {
    let file = folder.join("console.log");
    let text = fs::read(&file)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(CONSOLE_TAIL)..].join("\n");
    format!("end of {}:\n{tail}", file.display())
}
