//! What is told of the figures: tables for people, JSON for programs.

use crate::Failure;
use crate::bench::{Outcome, Results};
use crate::contestant::Kind;
use crate::machine::Machine;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::Path;

/// A figure that is measured.
pub struct Figure {
    /// Its name in JSON.
    pub name: &'static str,
    /// Its name in tables.
    pub title: &'static str,
    /// Its digits behind the point.
    pub digits: usize,
    /// Whether it is also drawn.
    pub drawn: bool,
}

/// All figures, in the order of the tables' columns. What each is exactly, PERFORMANCE.md says.
pub const FIGURES: &[Figure] = &[
    Figure { name: "throughput", title: "commands/s", digits: 0, drawn: true },
    Figure { name: "throughput_from_start", title: "commands/s with start", digits: 0, drawn: false },
    Figure { name: "p50", title: "p50 ms", digits: 1, drawn: true },
    Figure { name: "p99", title: "p99 ms", digits: 1, drawn: true },
    Figure { name: "p999", title: "p99.9 ms", digits: 1, drawn: false },
    Figure { name: "assigned", title: "assigned s", digits: 2, drawn: false },
    Figure { name: "first_commit", title: "first commit s", digits: 2, drawn: true },
    Figure { name: "first_after_assigned", title: "… after assigned s", digits: 2, drawn: false },
    Figure { name: "ready", title: "ready s", digits: 2, drawn: false },
    Figure { name: "all_partitions", title: "all partitions s", digits: 2, drawn: true },
    Figure { name: "restored", title: "records restored", digits: 0, drawn: false },
    Figure { name: "restore_rate", title: "restored/s", digits: 0, drawn: true },
    Figure { name: "cpu", title: "CPU s/M", digits: 2, drawn: true },
    Figure { name: "broker_cpu", title: "broker CPU s/M", digits: 2, drawn: false },
    Figure { name: "memory", title: "peak RSS MiB", digits: 0, drawn: true },
    Figure { name: "disk", title: "disk MiB", digits: 1, drawn: false },
    Figure { name: "rejected", title: "rejected %", digits: 1, drawn: false },
];

/// The rounds of one figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The one in the middle; of an even number the mean of the two.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of these values; `None` without any.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.retain(|value| value.is_finite());
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) { (values[middle - 1] + values[middle]) / 2.0 } else { values[middle] };
        Some(Spread { median, min, max })
    }
}

impl Results {
    /// A figure over all rounds that were verified.
    pub fn spread(&self, figure: &str) -> Option<Spread> {
        Spread::of(self.rounds.iter().filter_map(|round| round.figures.get(figure).copied()).collect())
    }
}

impl Outcome {
    /// What the others are compared with: the first contestant on Kafka Streams.
    fn reference(&self) -> Option<&Results> {
        self.case.contestants.iter().position(|c| c.kind == Kind::Streams).map(|n| &self.results[n])
    }

    /// The figures that any round has.
    pub fn figures(&self) -> impl Iterator<Item = &'static Figure> + '_ {
        FIGURES.iter().filter(|figure| self.results.iter().any(|results| results.spread(figure.name).is_some()))
    }

    /// The name of the scenario and what is special about the case.
    pub fn title(&self) -> String {
        format!("{}: {}", self.case.scenario, self.case.title)
    }

    /// A table in Markdown: a row for each contestant, and in it the median, the spread, and how many times the reference's it is.
    pub fn table(&self) -> String {
        let figures: Vec<&Figure> = self.figures().collect();
        let mut text = format!("### {}\n\n", self.title());
        if let Some(load) = Spread::of(self.results.iter().flat_map(|r| &r.rounds).map(|round| round.load_average).collect()) {
            write!(text, "Load average when its rounds began: {:.1} ({:.1}–{:.1}).\n\n", load.median, load.min, load.max)
                .expect("a string takes all");
        }
        text.push_str("| contestant | memory limit |");
        figures.iter().for_each(|figure| write!(text, " {} |", figure.title).expect("a string takes all"));
        write!(text, "\n|---|---|{}", "---:|".repeat(figures.len())).expect("a string takes all");
        for (contestant, results) in self.case.contestants.iter().zip(&self.results) {
            write!(text, "\n| {} | {} |", contestant.name, results.memory_limit).expect("a string takes all");
            for figure in &figures {
                write!(text, " {} |", self.cell(results, figure)).expect("a string takes all");
            }
        }
        text.push('\n');
        let failures = self.case.contestants.iter().zip(&self.results).flat_map(|(c, r)| r.failures.iter().map(|why| (c.name, why)));
        for (contestant, why) in failures {
            write!(text, "\nNot counted, a round of {contestant}: {}\n", why.lines().next().unwrap_or_default())
                .expect("a string takes all");
        }
        text
    }

    fn cell(&self, results: &Results, figure: &Figure) -> String {
        let Some(spread) = results.spread(figure.name) else { return "–".to_owned() };
        let number = |value: f64| self::number(value, figure.digits);
        let mut text = number(spread.median);
        if results.rounds.len() > 1 {
            write!(text, " ({}–{})", number(spread.min), number(spread.max)).expect("a string takes all");
        }
        if let Some(reference) = self.reference().filter(|reference| !std::ptr::eq(*reference, results)).and_then(|r| r.spread(figure.name))
        {
            write!(text, " ×{:.2}", spread.median / reference.median).expect("a string takes all");
        }
        text
    }

    fn json(&self) -> Value {
        let contestant = |(contestant, results): (&crate::contestant::Contestant, &Results)| {
            let settings: serde_json::Map<String, Value> = contestant.settings.iter().map(|(k, v)| (k.clone(), v.clone().into())).collect();
            let spread = |figure: &Figure| {
                results.spread(figure.name).map(|s| (figure.name.to_owned(), json!({"median": s.median, "min": s.min, "max": s.max})))
            };
            json!({
                "name": contestant.name,
                "settings": settings,
                "memory_limit": results.memory_limit,
                "figures": FIGURES.iter().filter_map(spread).collect::<serde_json::Map<_, _>>(),
                "rounds": results.rounds.iter().map(|round| json!({"load_average": round.load_average, "figures": round.figures})).collect::<Vec<_>>(),
                "failures": results.failures,
            })
        };
        json!({
            "scenario": self.case.scenario,
            "title": self.case.title,
            "brokers": self.case.brokers,
            "task": format!("{:?}", self.case.task),
            "contestants": self.case.contestants.iter().zip(&self.results).map(contestant).collect::<Vec<_>>(),
        })
    }
}

/// Writes `results.json`, `results.md` and `results.svg` into the folder, over those that are there.
pub fn write(folder: &Path, machine: &Machine, outcomes: &[Outcome]) -> Result<(), Failure> {
    std::fs::create_dir_all(folder)?;
    let json = json!({"machine": machine, "cases": outcomes.iter().map(Outcome::json).collect::<Vec<_>>()});
    std::fs::write(folder.join("results.json"), serde_json::to_string_pretty(&json).expect("figures and text are JSON") + "\n")?;
    let tables: Vec<String> = outcomes.iter().map(Outcome::table).collect();
    let head = format!("{}\n\nMedian (smallest–largest round) ×ratio to Kafka Streams.\n", machine.lines().join("\n"));
    std::fs::write(folder.join("results.md"), format!("{head}\n{}", tables.join("\n")))?;
    std::fs::write(folder.join("results.svg"), crate::plot::svg(outcomes))?;
    Ok(())
}

/// A number with commas between the thousands.
pub fn number(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    let (whole, rest) = text.split_once('.').map_or((text.as_str(), String::new()), |(whole, rest)| (whole, format!(".{rest}")));
    match whole.parse::<usize>() {
        Ok(whole) => crate::scenarios::count(whole) + &rest,
        Err(_) => text,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::bench::{Case, Round};
    use crate::contestant::Contestant;
    use crate::measure::{Figures, Task};
    use crate::workload::{Skew, Workload};

    /// Two contestants: ours with three rounds, the other with one, and a failure.
    pub(crate) fn outcome() -> Outcome {
        let workload = Workload { accounts: 1, opening: false, commands: 1, skew: Skew::Uniform, seed: 1, partitions: 1 };
        let contestants =
            vec![Contestant::new("ours", Kind::Es, &[("headers", "full")]), Contestant::new("Kafka <Streams>", Kind::Streams, &[])];
        let case = Case { scenario: "throughput", title: "a test".into(), brokers: 1, task: Task::Throughput(workload), contestants };
        let rounds = |values: &[f64]| {
            let round = |value| Round { figures: Figures::from([("throughput", value), ("cpu", 2.0)]), load_average: 1.0 };
            values.iter().copied().map(round).collect()
        };
        let ours = Results { memory_limit: "64MiB".into(), rounds: rounds(&[300_000.0, 100_000.0, 250_000.0]), failures: vec![] };
        let other =
            Results { memory_limit: "heap".into(), rounds: rounds(&[50_000.0]), failures: vec!["not verified: gone\nwith a log".into()] };
        Outcome { case, results: vec![ours, other] }
    }

    #[test]
    fn the_median_is_in_the_middle_whatever_the_order() {
        assert_eq!(Spread::of(vec![3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Spread::of(vec![4.0, 1.0]).map(|s| s.median), Some(2.5));
        assert_eq!(Spread::of(vec![f64::NAN]), None);
    }

    #[test]
    fn a_table_has_median_spread_ratio_and_what_does_not_count() {
        let table = outcome().table();
        assert!(table.contains("| contestant | memory limit | commands/s | CPU s/M |"), "{table}");
        assert!(table.contains("| ours | 64MiB | 250,000 (100,000–300,000) ×5.00 | 2.00 (2.00–2.00) ×1.00 |"), "{table}");
        assert!(table.contains("| Kafka <Streams> | heap | 50,000 | 2.00 |"), "{table}");
        assert!(table.ends_with("Not counted, a round of Kafka <Streams>: not verified: gone\n"), "{table}");
    }

    #[test]
    fn json_tells_each_round() {
        let json = outcome().json();
        assert_eq!(json["contestants"][0]["rounds"].as_array().unwrap().len(), 3);
        assert_eq!(json["contestants"][0]["figures"]["throughput"]["median"], 250_000.0);
        assert_eq!(json["contestants"][0]["settings"]["headers"], "full");
    }
}
