//! A ring so small that it overflows: what the counters say is lost must be what the truth says is missing.

use anyhow::{Result, ensure};

use super::{Account, Stage, Test};
use crate::clock::wait_until;
use crate::compare::Rules;
use crate::peer::Program;
use crate::truth::Truth;

pub(super) const TESTS: &[Test] = &[("overflow::a ring of one page", overflow)];

fn overflow(stage: &Stage) -> Result<()> {
    let observer = stage.observe(&["--ring-bytes", "4096"])?;
    let mut clients: Vec<(Program, Account)> = Vec::new();
    for _ in 0..4 {
        let truth = stage.lab.file("truth.jsonl");
        let path = truth.to_string_lossy().into_owned();
        let client = stage.tiny(&["tiny-client", "--truth", &path, "--calls", "2000", "--bytes", "300"])?;
        clients.push((
            client,
            Account {
                truth,
                rules: Rules {
                    lossy: true,
                    ..Rules::default()
                },
            },
        ));
    }
    for (client, _) in &mut clients {
        client.finish(stage.lab.limit(60))?;
    }
    let accounts: Vec<Account> = clients.into_iter().map(|(_, account)| account).collect();
    let truths = accounts
        .iter()
        .map(|account| Truth::read(&account.truth))
        .collect::<Result<Vec<Truth>>>()?;
    let given: u64 = truths.iter().filter_map(|truth| truth.bytes).sum();
    let made: usize = truths.iter().map(|truth| truth.calls.len()).sum();
    observer
        .reader()
        .wait_for(&[(truths[0].pid, made)], stage.lab.limit(2))?;
    // The end of a stream may be lost too, and is made up for: what it holds is lost then.
    let streams = || observer.metric("mcp_observer_streams", "").unwrap_or(-1.0);
    let none = wait_until(stage.lab.limit(20), || (streams() == 0.0).then_some(()));
    ensure!(none.is_some(), "{} streams have not ended", streams());
    let (lost, held) = (observer.lost_bytes()?, observer.held_bytes()?);
    let reasons = observer.series("mcp_observer_lost_bytes_total")?.join("\n    ");
    let records = observer.stop()?;
    let seen: u64 = records.iter().map(crate::record::Record::total_bytes).sum();
    ensure!(
        records.len() < made,
        "all of {made} calls were seen: the ring did not overflow"
    );
    stage.reckon(&records, &accounts, 0)?;
    // A message's newline may be counted with it or not.
    let newlines = u64::try_from(2 * records.len())?;
    let told = seen + lost + held;
    ensure!(
        told <= given && told + newlines >= given,
        "{given} bytes passed, {seen} are in {} of {made} calls, {held} are held and {lost} are counted as lost: {} are unaccounted for\n    {reasons}",
        records.len(),
        i128::from(given) - i128::from(told),
    );
    Ok(())
}
