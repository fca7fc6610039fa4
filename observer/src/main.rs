//! tmp
use observer::capture::*;
fn main() {
    let args: Vec<String> = std::env::args().collect();
    if args[1] == "check" {
        println!("{:#?}", survey());
        return;
    }
    let backend = match args[1].as_str() {
        "function" => BackendChoice::Function,
        "syscall" => BackendChoice::Syscall,
        _ => BackendChoice::Auto,
    };
    let mut child = std::process::Command::new("sh")
        .arg("-c")
        .arg(format!("sleep 0.7; {}", args[2]))
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let t = std::time::Instant::now();
    let mut c = Capture::start(&Options {
        backend,
        scope: Scope {
            pids: vec![child.id()],
            cgroups: vec![],
        },
        ring_bytes: 1 << 22,
    })
    .unwrap();
    eprintln!("start {:?} {:?} {}", t.elapsed(), c.backend(), c.backend_reason());
    let until = std::time::Instant::now() + std::time::Duration::from_millis(args[3].parse().unwrap());
    while std::time::Instant::now() < until {
        std::thread::sleep(std::time::Duration::from_millis(20));
        c.drain(|e| {
            let s = format!("{e:?}");
            println!("{}", if s.len() > 420 { &s[..420] } else { &s })
        });
    }
    let _ = child.kill();
    println!(
        "{:?} muted {} skipped {:?}",
        c.losses().into_iter().filter(|l| l.1.events > 0).collect::<Vec<_>>(),
        c.muted_bytes(),
        c.skipped_runs().into_iter().filter(|x| x.1 > 0).collect::<Vec<_>>()
    );
    println!(
        "{}",
        std::fs::read_to_string("/proc/self/status")
            .unwrap()
            .lines()
            .filter(|l| l.starts_with("VmHWM") || l.starts_with("VmRSS"))
            .collect::<Vec<_>>()
            .join(" ")
    );
}
