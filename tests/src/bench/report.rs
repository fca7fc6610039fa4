//! Figures: collected, printed as a table while they come, written as JSON at the end.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::lab::Lab;

/// Everything that was measured, and on what.
#[derive(Serialize)]
pub(super) struct Report {
    kernel: String,
    backend: String,
    cpus: usize,
    /// Processes that wanted a CPU on average of a minute, before the first run: what else the machine was doing.
    load: String,
    figures: Vec<Figure>,
}

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Figure {
    pub(super) case: String,
    pub(super) what: &'static str,
    pub(super) unit: &'static str,
    /// Without the observer, with empty programs on its hooks, with the observer; medians.
    pub(super) without: Option<f64>,
    pub(super) empty: Option<f64>,
    pub(super) with: Option<f64>,
    /// What the target is about, mostly the observer's figure over the one without it.
    pub(super) ratio: Option<f64>,
    /// What is to be reached.
    pub(super) target: Option<Target>,
}

/// A bound on a ratio, or on the observer's figure where there is no ratio.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Target {
    AtLeast(f64),
    AtMost(f64),
}

impl Target {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
        }
    }
}

impl Figure {
    /// A figure with the observer alone.
    pub(super) fn alone(case: &str, what: &'static str, unit: &'static str, with: f64) -> Self {
        Self {
            case: case.to_owned(),
            what,
            unit,
            without: None,
            empty: None,
            with: Some(with),
            ratio: None,
            target: None,
        }
    }

    /// A figure without and with the observer, from all runs of both.
    pub(super) fn pair(case: &str, what: &'static str, unit: &'static str, without: &[f64], with: &[f64]) -> Self {
        let (without, with) = (median(without), median(with));
        Self {
            without: Some(without),
            ratio: Some(with / without),
            ..Self::alone(case, what, unit, with)
        }
    }

    /// The same with a bound.
    pub(super) fn with_target(self, target: Target) -> Self {
        Self {
            target: Some(target),
            ..self
        }
    }
}

impl Report {
    /// Says what the machine is and prints the table's head.
    pub(super) fn begin(lab: &Lab) -> Self {
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let report = Self {
            kernel: lab.kernel().to_owned(),
            backend: lab.backend.clone(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            load: load.split(' ').next().unwrap_or_default().to_owned(),
            figures: Vec::new(),
        };
        println!(
            "kernel {}, {} CPUs, backend {}, load before the first run {}",
            report.kernel, report.cpus, report.backend, report.load
        );
        println!(
            "{:<26} {:<28} {:>12} {:>12} {:>12} {:>7}  target",
            "case", "figure", "without", "empty", "observer", "ratio"
        );
        report
    }

    /// Adds a figure and prints its line.
    pub(super) fn add(&mut self, figure: Figure) {
        println!("{}", line(&figure));
        self.figures.push(figure);
    }

    /// Writes the JSON, if it was asked for.
    pub(super) fn finish(&self, file: Option<&Path>) -> Result<()> {
        let Some(file) = file else { return Ok(()) };
        let text = serde_json::to_string_pretty(self)?;
        fs::write(file, format!("{text}\n")).with_context(|| format!("{} cannot be written", file.display()))
    }
}

fn line(figure: &Figure) -> String {
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), short);
    let ratio = figure
        .ratio
        .map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.3}"));
    let target = figure.target.map_or_else(String::new, |target| {
        let bound = match target {
            Target::AtLeast(bound) => format!(">= {bound}"),
            Target::AtMost(bound) => format!("<= {bound}"),
        };
        let reached = figure.ratio.or(figure.with).is_some_and(|value| target.is_met(value));
        format!("{bound} {}", if reached { "met" } else { "MISSED" })
    });
    format!(
        "{:<26} {:<28} {:>12} {:>12} {:>12} {ratio:>7}  {target}",
        figure.case,
        format!("{} ({})", figure.what, figure.unit),
        number(figure.without),
        number(figure.empty),
        number(figure.with),
    )
}

fn short(value: f64) -> String {
    if value.abs() >= 1000.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.3}")
    }
}

/// The middle of some values; not a number where there are none.
pub(super) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The value that a share of the values does not exceed; not a number where there are none.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "places in a list of measurements"
)]
pub(super) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    let place = last as f64 * share;
    let (low, high) = (place.floor() as usize, place.ceil() as usize);
    sorted[low] + (sorted[high] - sorted[low]) * place.fract()
}

#[cfg(test)]
mod tests {
    use super::{Figure, Target, line, quantile};

    #[test]
    fn quantiles() {
        assert!((quantile(&[3.0, 1.0, 2.0], 0.5) - 2.0).abs() < 1e-9);
        assert!((quantile(&[1.0, 2.0], 0.5) - 1.5).abs() < 1e-9);
        assert!((quantile(&[4.0], 0.99) - 4.0).abs() < 1e-9);
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn a_line_says_whether_the_target_is_met() {
        let figure =
            |with: &[f64]| Figure::pair("case", "rate", "1/s", &[100.0], with).with_target(Target::AtLeast(0.98));
        assert!(line(&figure(&[99.0])).ends_with(">= 0.98 met"));
        assert!(line(&figure(&[97.0])).ends_with(">= 0.98 MISSED"));
    }
}
