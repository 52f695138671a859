//! What is told of the figures: tables for people, JSON for programs.

use crate::Failure;
use crate::bench::{Outcome, Results, Round};
use crate::contestant::Kind;
use crate::machine::Machine;
use crate::measure::Step;
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
    /// What it must not exceed, where this project has set itself an aim.
    pub aim: Option<f64>,
}

impl Figure {
    const fn new(name: &'static str, title: &'static str, digits: usize, drawn: bool) -> Self {
        Figure { name, title, digits, drawn, aim: None }
    }

    const fn aim(self, most: f64) -> Self {
        Figure { aim: Some(most), ..self }
    }

    /// Its title, with the aim.
    fn head(&self) -> String {
        match self.aim {
            Some(most) => format!("{} (aim: ≤ {})", self.title, number(most, 0)),
            None => self.title.to_owned(),
        }
    }
}

/// All figures, in the order of the tables' columns. What each is exactly, PERFORMANCE.md says.
pub const FIGURES: &[Figure] = &[
    Figure::new("throughput", "commands/s", 0, true),
    Figure::new("throughput_from_start", "commands/s with start", 0, false),
    Figure::new("p50", "p50 ms", 1, true),
    Figure::new("p99", "p99 ms", 1, true),
    Figure::new("p999", "p99.9 ms", 1, false),
    Figure::new("assigned", "assigned s", 2, false),
    Figure::new("first_commit", "first commit s", 2, true),
    Figure::new("first_after_assigned", "… after assigned s", 2, false),
    Figure::new("ready", "ready s", 2, false),
    Figure::new("all_partitions", "all partitions s", 2, true),
    Figure::new("restored", "records restored", 0, false),
    Figure::new("restore_rate", "restored/s", 0, true),
    Figure::new("cpu", "CPU s/M", 2, true),
    Figure::new("broker_cpu", "broker CPU s/M", 2, false),
    Figure::new("memory", "peak RSS MiB", 0, true),
    Figure::new("disk", "disk MiB", 1, false),
    Figure::new("rejected", "rejected %", 1, false),
    Figure::new("failover", "fail-over s", 2, true).aim(1.0),
    Figure::new("failover_worst", "worst fail-over s", 2, true).aim(3.0),
    Figure::new("failover_open", "… in a transaction s", 2, false),
    Figure::new("failover_others", "worst of the others' partitions s", 2, false),
    Figure::new("kill_standstill", "longest standstill, return included s", 2, false),
    Figure::new("failover_restored", "restored in a fail-over", 0, false),
    Figure::new("restart_standstill", "standstill in a restart s", 2, false),
    Figure::new("restart_standstill_worst", "worst standstill in a restart s", 2, true).aim(1.0),
    Figure::new("restored_changelog", "restored in a restart", 0, false).aim(0.0),
    Figure::new("copied_changelog", "read for new standbys", 0, false),
    Figure::new("refolded", "most events folded again", 0, false),
    Figure::new("back", "all well again s", 1, false),
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
        figures.iter().for_each(|figure| write!(text, " {} |", figure.head()).expect("a string takes all"));
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
        for (contestant, results) in self.case.contestants.iter().zip(&self.results) {
            for (n, round) in results.rounds.iter().enumerate().filter(|(_, round)| !round.steps.is_empty()) {
                write!(text, "\nThe steps of {}, round {}:\n\n{}", contestant.name, n + 1, steps(&round.steps))
                    .expect("a string takes all");
            }
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
                results.spread(figure.name).map(|s| {
                    let mut json = json!({"median": s.median, "min": s.min, "max": s.max});
                    if let Some(aim) = figure.aim {
                        json["aim"] = aim.into();
                    }
                    (figure.name.to_owned(), json)
                })
            };
            json!({
                "name": contestant.name,
                "settings": settings,
                "memory_limit": results.memory_limit,
                "figures": FIGURES.iter().filter_map(spread).collect::<serde_json::Map<_, _>>(),
                "rounds": results.rounds.iter().map(round_json).collect::<Vec<_>>(),
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

fn round_json(round: &Round) -> Value {
    let mut json = json!({"load_average": round.load_average, "figures": round.figures});
    if !round.steps.is_empty() {
        let step = |step: &Step| json!({"what": step.what, "figures": step.figures});
        json["steps"] = round.steps.iter().map(step).collect();
    }
    json
}

/// A table of steps: a row for each.
fn steps(steps: &[Step]) -> String {
    let figures: Vec<&Figure> = FIGURES.iter().filter(|figure| steps.iter().any(|step| step.figures.contains_key(figure.name))).collect();
    let mut text = String::from("| step |");
    figures.iter().for_each(|figure| write!(text, " {} |", figure.title).expect("a string takes all"));
    write!(text, "\n|---|{}\n", "---:|".repeat(figures.len())).expect("a string takes all");
    for step in steps {
        write!(text, "| {} |", step.what).expect("a string takes all");
        for figure in &figures {
            let value = step.figures.get(figure.name).map_or("–".to_owned(), |value| number(*value, figure.digits));
            write!(text, " {value} |").expect("a string takes all");
        }
        text.push('\n');
    }
    text
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
    use crate::bench::Case;
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
            let round = |value| Round { figures: Figures::from([("throughput", value), ("cpu", 2.0)]), steps: vec![], load_average: 1.0 };
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
