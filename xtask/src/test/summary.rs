//! What came of each step: a table at the end, and a total a machine can read.

use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use comfy_table::{CellAlignment, Table, presets};

/// Lines of a step's failures that the end of the run repeats.
const FAILURE_LINES: usize = 40;

/// Numbers of tests in one step, and why some failed.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Tally {
    passed: u32,
    failed: u32,
    skipped: u32,
    /// What the test programs said of their failures.
    failures: String,
    /// The program itself failed, whatever it said of its tests.
    broken: bool,
}

impl Tally {
    /// Adds up the `test result:` lines of a test program's output.
    pub(super) fn of(status: ExitStatus, output: &str) -> Self {
        let mut tally = Self {
            broken: !status.success(),
            ..Self::default()
        };
        for line in output
            .lines()
            .filter_map(|line| line.trim().strip_prefix("test result:"))
        {
            tally.passed += number_before(line, "passed");
            tally.failed += number_before(line, "failed");
            tally.skipped += number_before(line, "ignored");
        }
        tally.failures = failures(output);
        tally
    }

    /// The same for a program in a guest, of which only the exit code is known.
    pub(super) fn of_code(code: i32, output: &str) -> Self {
        use std::os::unix::process::ExitStatusExt;
        Self::of(ExitStatus::from_raw((code & 0xff) << 8), output)
    }

    /// The same, failed where no test ran at all.
    pub(super) fn not_empty(self) -> Result<Self> {
        if self == Self::default() {
            bail!("no test ran");
        }
        Ok(self)
    }

    fn is_bad(&self) -> bool {
        self.broken || self.failed > 0
    }
}

/// What test programs say of their failures: each from its `---- NAME ----` to the list of names.
fn failures(output: &str) -> String {
    let mut told = Vec::new();
    let mut within = false;
    for line in output.lines() {
        within = line.starts_with("---- ") || (within && line != "failures:");
        if within && !line.is_empty() {
            told.push(line);
        }
    }
    told.truncate(FAILURE_LINES);
    told.join("\n")
}

/// Number that stands before `word` in `ok. 12 passed; 0 failed; 1 ignored`.
fn number_before(line: &str, word: &str) -> u32 {
    let words: Vec<_> = line.split([' ', ';']).filter(|word| !word.is_empty()).collect();
    words
        .windows(2)
        .find(|pair| pair[1] == word)
        .and_then(|pair| pair[0].parse().ok())
        .unwrap_or_default()
}

/// One step and what came of it.
#[derive(Debug)]
struct Row {
    part: &'static str,
    name: String,
    outcome: Result<Tally>,
    took: Duration,
}

/// All steps so far.
#[derive(Debug, Default)]
pub(super) struct Summary {
    rows: Vec<Row>,
}

impl Summary {
    /// Runs one step, after a line that says so.
    pub(super) fn step(&mut self, part: &'static str, name: &str, step: impl FnOnce() -> Result<Tally>) {
        eprintln!("\ntest: {part}: {name}");
        let start = Instant::now();
        let outcome = step();
        if let Err(error) = &outcome {
            eprintln!("test: {part}: {name}: {error:#}");
        }
        self.rows.push(Row {
            part,
            name: name.to_owned(),
            outcome,
            took: start.elapsed(),
        });
    }

    /// Tells whether any step failed.
    pub(super) fn failed(&self) -> bool {
        self.rows.iter().any(Row::is_bad)
    }

    /// Prints the table, why steps failed, and the total.
    pub(super) fn print(&self) {
        println!("\n{}\n{}\n{}", self.table(), self.failures(), self.total());
    }

    /// Why each bad step failed: whoever sees but the end of a long run reads it here.
    fn failures(&self) -> String {
        let why = |row: &Row| match &row.outcome {
            Err(error) => format!("{error:#}"),
            Ok(tally) if tally.failures.is_empty() => "the program itself failed: see its output above".to_owned(),
            Ok(tally) => tally.failures.clone(),
        };
        let bad = self.rows.iter().filter(|row| row.is_bad());
        bad.map(|row| format!("\n{}: {}\n{}\n", row.part, row.name, why(row)))
            .collect()
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_FULL_CONDENSED);
        table.set_header(["part", "step", "result", "passed", "failed", "skipped", "seconds"]);
        for row in &self.rows {
            let result = if row.is_bad() { "FAILED" } else { "ok" };
            let [passed, failed, skipped] =
                [row.passed(), row.failed(), row.counted(|tally| tally.skipped)].map(|number| number.to_string());
            let seconds = row.took.as_secs().to_string();
            table.add_row([row.part, &row.name, result, &passed, &failed, &skipped, &seconds]);
        }
        for column in table.column_iter_mut().skip(3) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }

    /// One line for people and machines: `212 passed, 0 failed`.
    ///
    /// A step without tests of its own, such as a guard, counts as one; so does one that failed before it could count.
    fn total(&self) -> String {
        let sum = |of: fn(&Row) -> u32| self.rows.iter().map(of).sum::<u32>();
        format!("{} passed, {} failed", sum(Row::passed), sum(Row::failed))
    }
}

impl Row {
    fn is_bad(&self) -> bool {
        self.outcome.as_ref().map_or(true, Tally::is_bad)
    }

    fn counted(&self, number: fn(&Tally) -> u32) -> u32 {
        self.outcome.as_ref().map_or(0, number)
    }

    fn passed(&self) -> u32 {
        let counted = self.counted(|tally| tally.passed);
        if self.is_bad() { counted } else { counted.max(1) }
    }

    fn failed(&self) -> u32 {
        let counted = self.counted(|tally| tally.failed);
        if self.is_bad() { counted.max(1) } else { counted }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_add_up_over_test_programs() {
        let output = "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.0s\nx\n\
            test result: FAILED. 2 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out\n";
        assert_eq!(
            Tally::of_code(0, output),
            Tally {
                passed: 14,
                failed: 3,
                skipped: 1,
                ..Tally::default()
            }
        );
    }

    #[test]
    fn the_end_says_why_tests_failed() {
        let output = "test a ... ok\n\nfailures:\n\n---- native::b ----\nit took 3 s to stop\n\nfailures:\n    native::b\n\n\
            test result: FAILED. 1 passed; 1 failed; 0 ignored\n";
        let mut summary = Summary::default();
        summary.step("native", "syscall", || Ok(Tally::of_code(101, output)));
        assert_eq!(
            summary.failures(),
            "\nnative: syscall\n---- native::b ----\nit took 3 s to stop\n"
        );
    }

    #[test]
    fn a_program_that_ends_badly_fails_its_step_even_without_results() {
        let mut summary = Summary::default();
        summary.step("unit", "good", || Ok(Tally::of_code(0, "")));
        assert!(!summary.failed());
        summary.step("unit", "bad", || Ok(Tally::of_code(101, "error: could not compile")));
        assert!(summary.failed());
        assert_eq!(summary.total(), "1 passed, 1 failed");
    }

    #[test]
    fn a_step_that_ran_no_test_proves_nothing() {
        assert!(
            Tally::of_code(0, "test result: ok. 0 passed; 0 failed; 0 ignored")
                .not_empty()
                .is_err()
        );
        assert!(
            Tally::of_code(0, "test result: ok. 1 passed; 0 failed; 0 ignored")
                .not_empty()
                .is_ok()
        );
    }

    #[test]
    fn a_step_that_could_not_run_is_a_failure() {
        let mut summary = Summary::default();
        summary.step("vm", "6.1", || bail!("no disk"));
        assert!(summary.failed() && summary.table().to_string().contains("FAILED"));
    }
}
