//! Prints the events of a recording, one a line.

use observer::capture::recording::{Entry, Reader};

fn main() -> anyhow::Result<()> {
    let path = std::env::args_os()
        .nth(1)
        .ok_or_else(|| anyhow::anyhow!("usage: dump RECORDING"))?;
    for entry in Reader::open(path.as_ref())? {
        match entry? {
            Entry::Event(event) => println!("{event:?}"),
            Entry::Turn(now) => println!("turn {}", now.0),
            Entry::Anchor(now, wall) => println!("anchor {} {wall:?}", now.0),
        }
    }
    Ok(())
}
