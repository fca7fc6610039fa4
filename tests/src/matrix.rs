//! The matrix: a row for each test with the calls made and the calls seen, collected over all backends and kernels.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};

/// One test's row.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) test: String,
    pub(crate) transport: String,
    pub(crate) backend: String,
    pub(crate) kernel: String,
    pub(crate) made: usize,
    pub(crate) seen: usize,
    pub(crate) passed: bool,
}

/// Appends a row as one line of JSON.
pub(crate) fn append(file: &Path, row: &Row) -> Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(file)?;
    Ok(file.write_all(format!("{}\n", serde_json::to_string(row)?).as_bytes())?)
}

/// Prints a file as a table: tests down, kernel and backend across.
pub(crate) fn print(file: &Path) -> Result<()> {
    let text = fs::read_to_string(file)?;
    let rows = text
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<Vec<Row>, _>>()?;
    print!("{}", table(&rows));
    Ok(())
}

fn table(rows: &[Row]) -> String {
    let mut columns: Vec<String> = rows.iter().map(column).collect();
    columns.sort();
    columns.dedup();
    let mut tests: Vec<(&str, &str)> = Vec::new();
    for row in rows {
        if !tests.contains(&(&row.test, &row.transport)) {
            tests.push((&row.test, &row.transport));
        }
    }
    let mut out = format!("{:<60} {:<9}", "test: calls seen/made", "transport");
    for name in &columns {
        let _ = write!(out, " {name:>16}");
    }
    out.push('\n');
    for (test, transport) in tests {
        let _ = write!(out, "{test:<60} {transport:<9}");
        for name in &columns {
            // The newest row counts where a test ran twice.
            let row = rows
                .iter()
                .rfind(|row| row.test == test && row.transport == transport && column(row) == *name);
            let _ = write!(out, " {:>16}", row.map_or("-".to_owned(), cell));
        }
        out.push('\n');
    }
    out
}

fn column(row: &Row) -> String {
    let version: Vec<&str> = row.kernel.split(['.', '-']).take(2).collect();
    format!("{} {}", version.join("."), row.backend)
}

fn cell(row: &Row) -> String {
    format!("{}/{}{}", row.seen, row.made, if row.passed { "" } else { " FAILED" })
}

#[cfg(test)]
mod tests {
    use super::{Row, table};

    #[test]
    fn the_newest_row_counts() {
        let row = |kernel: &str, seen, passed| Row {
            test: "pair".to_owned(),
            transport: "stdio".to_owned(),
            backend: "function".to_owned(),
            kernel: kernel.to_owned(),
            made: 9,
            seen,
            passed,
        };
        let text = table(&[
            row("6.1.0-56", 8, false),
            row("6.1.0-56", 9, true),
            row("6.12.1", 7, false),
        ]);
        let words: Vec<&str> = text
            .lines()
            .nth(1)
            .expect("a line for the test")
            .split_whitespace()
            .collect();
        assert_eq!(words, ["pair", "stdio", "9/9", "7/9", "FAILED"]);
    }
}
