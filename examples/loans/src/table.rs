//! The table: figures of the whole log, taken from committed events and from the stored states.

use crate::activity::{Activity, Transition};
use crate::loan::{Loan, LoanEvent, Stage};
use es_kafka::{Aggregate, Envelope, Millis};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;

/// What was read back of the events topic and the store.
#[derive(Debug, Default)]
pub struct Table {
    cases: HashMap<String, Case>,
    events: u64,
    by_transition: BTreeMap<Transition, u64>,
    by_activity: BTreeMap<Activity, u64>,
    stored: u64,
    amounts: u64,
    offers_open: u64,
    work_open: u64,
    in_stage: BTreeMap<Stage, u64>,
    time_in_stage: BTreeMap<Stage, Visits>,
    wrong: Vec<String>,
}

/// What the events topic holds of one application.
#[derive(Debug, Default)]
struct Case {
    sequence: Vec<(Activity, Transition)>,
    causes: HashSet<String>,
    folded: Loan,
    stored: bool,
}

/// The visits of all applications to one stage.
#[derive(Debug, Default, Clone, Copy)]
struct Visits {
    number: u64,
    time: Millis,
}

impl Table {
    /// Takes the next committed event; those of one application come in their order.
    pub fn event(&mut self, envelope: &Envelope<LoanEvent>) {
        let (activity, transition) = envelope.event.in_the_log();
        self.events += 1;
        *self.by_transition.entry(transition).or_default() += 1;
        *self.by_activity.entry(activity).or_default() += 1;
        let case = self.cases.entry(envelope.aggregate_id.clone()).or_default();
        let index = case.sequence.len() as u64;
        case.sequence.push((activity, transition));
        let entry = envelope.event.entry().index;
        if envelope.sequence != index + 1 || entry != index {
            let sequence = envelope.sequence;
            let what = format!("event {} of the log has ce_sequence {sequence} and tells of entry {entry}", index + 1);
            self.wrong.push(format!("{}: {what}", envelope.aggregate_id));
        }
        if let Some(cause) = envelope.causation_id.clone()
            && let Some(twice) = case.causes.replace(cause)
        {
            self.wrong.push(format!("{}: the command {twice} has left two events", envelope.aggregate_id));
        }
        case.folded.apply(envelope.event.clone());
    }

    /// Takes the stored state of one application, once all events were taken.
    pub fn state(&mut self, id: &str, loan: &Loan) {
        self.stored += 1;
        self.amounts += loan.amount;
        self.offers_open += u64::from(loan.offers.are_open());
        self.work_open += loan.open_work();
        if let Some(stage) = loan.stage() {
            *self.in_stage.entry(stage).or_default() += 1;
        }
        for (stage, time) in loan.time_in_stages() {
            let visits = self.time_in_stage.entry(stage).or_default();
            visits.number += 1;
            visits.time += time;
        }
        match self.cases.get_mut(id) {
            None => self.wrong.push(format!("{id}: the store has it, the log does not")),
            Some(case) if case.folded != *loan => self.wrong.push(format!("{id}: the store differs from the fold of the log")),
            Some(case) if case.stored => self.wrong.push(format!("{id}: the store has it twice")),
            Some(case) => case.stored = true,
        }
    }

    /// What does not fit: an event twice, one missing, a stored state that is not the fold of its events. Empty when all is well.
    pub fn differences(&self) -> Vec<String> {
        let missing = self.cases.iter().filter(|(_, case)| !case.stored).map(|(id, _)| format!("{id}: the log has it, the store does not"));
        let mut all: Vec<String> = self.wrong.iter().cloned().chain(missing).collect();
        all.sort();
        all
    }

    /// How many events the topic holds of an application.
    pub fn events_of(&self, id: &str) -> u64 {
        self.cases.get(id).map_or(0, |case| case.sequence.len() as u64)
    }

    fn count(&self, activity: Activity) -> u64 {
        self.by_activity.get(&activity).copied().unwrap_or(0)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, value: &dyn fmt::Display| writeln!(f, "{name:<44} {value:>14}");
        row("FROM THE EVENTS TOPIC", &"")?;
        row("traces (applications)", &grouped(self.cases.len() as u64))?;
        row("events", &grouped(self.events))?;
        for transition in Transition::ALL {
            row(&format!("  {}", transition.name()), &grouped(self.by_transition.get(&transition).copied().unwrap_or(0)))?;
        }
        let sequences: BTreeSet<&[(Activity, Transition)]> = self.cases.values().map(|case| &case.sequence[..]).collect();
        row("distinct sequences of (activity, transition)", &grouped(sequences.len() as u64))?;
        for (activity, name) in Activity::ALL {
            row(&format!("  {name}"), &grouped(self.count(activity)))?;
        }
        row("FROM THE STORE", &"")?;
        row("applications", &grouped(self.stored))?;
        row("sum of AMOUNT_REQ", &grouped(self.amounts))?;
        row("applications with an open offer", &grouped(self.offers_open))?;
        row("open work items", &grouped(self.work_open))?;
        row("applications by stage (mean days in it)", &"")?;
        for (stage, visits) in &self.time_in_stage {
            let days = visits.time as f64 / visits.number as f64 / 86_400_000.0;
            let here = self.in_stage.get(stage).copied().unwrap_or(0);
            row(&format!("  {:<24} {days:>8.2} days", Activity::Application(*stage).name()), &grouped(here))?;
        }
        match &self.differences()[..] {
            [] => writeln!(f, "No event is there twice, none is missing, and the store is the fold of the log."),
            some => {
                writeln!(f, "WRONG: {} differences", some.len())?;
                some.iter().take(20).try_for_each(|what| writeln!(f, "  {what}"))
            }
        }
    }
}

/// A number with commas between its thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loan::{Entry, Work};
    use es_testkit::given;

    fn entry(index: u64) -> Entry {
        Entry { index, at: 86_400_000 * index as Millis, by: None }
    }

    /// An application with one work item.
    fn events() -> Vec<LoanEvent> {
        vec![
            LoanEvent::Submitted { entry: entry(0), amount: 1500 },
            LoanEvent::Advanced { entry: entry(1), to: Stage::PartlySubmitted },
            LoanEvent::WorkPlanned { entry: entry(2), work: Work::Leads },
            LoanEvent::WorkStarted { entry: entry(3), work: Work::Leads },
        ]
    }

    fn envelope(id: &str, sequence: u64, event: LoanEvent) -> Envelope<LoanEvent> {
        Envelope {
            id: String::new(),
            aggregate_id: id.to_owned(),
            sequence,
            causation_id: Some(format!("{id}-{}", event.entry().index)),
            correlation_id: None,
            provenance: None,
            partition: 0,
            offset: 0,
            timestamp: 0,
            event,
        }
    }

    /// The table of these applications, each with its events and as it is stored.
    fn table(applications: &[(&str, Vec<LoanEvent>)]) -> Table {
        let mut table = Table::default();
        for (id, events) in applications {
            (1..).zip(events).for_each(|(sequence, event)| table.event(&envelope(id, sequence, event.clone())));
        }
        for (id, events) in applications {
            table.state(id, &given::<Loan>(events.clone()).state());
        }
        table
    }

    #[test]
    fn figures_are_counted_over_all_applications() {
        let mut more = events();
        more.push(LoanEvent::WorkCompleted { entry: entry(4), work: Work::Leads });
        let table = table(&[("1", events()), ("2", more), ("3", events())]);
        let shown: Vec<String> = table.to_string().lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        for expected in [
            "traces (applications) 3",
            "events 13",
            "COMPLETE 7",
            "START 3",
            "SCHEDULE 3",
            "distinct sequences of (activity, transition) 2",
            "A_SUBMITTED 3",
            "W_Afhandelen leads 7",
            "applications 3",
            "sum of AMOUNT_REQ 4,500",
            "open work items 2",
            "A_SUBMITTED 1.00 days 0",
            "A_PARTLYSUBMITTED 2.33 days 3",
            "No event is there twice, none is missing, and the store is the fold of the log.",
        ] {
            assert!(shown.iter().any(|line| line == expected), "`{expected}` is missing from\n{table}");
        }
        assert_eq!((table.events_of("2"), table.events_of("4")), (5, 0));
    }

    #[test]
    fn what_is_twice_missing_or_different_is_told() {
        let check = |change: fn(&mut Table), what: &str| {
            let mut table = table(&[("1", events())]);
            assert_eq!(table.differences(), Vec::<String>::new());
            change(&mut table);
            let differences = table.differences();
            assert!(differences.iter().any(|difference| difference.starts_with(what)), "{what}: {differences:?}");
            assert!(table.to_string().contains("WRONG"));
        };
        check(|table| table.event(&envelope("1", 4, events().remove(3))), "1: event 5 of the log has ce_sequence 4 and tells of entry 3");
        check(|table| table.event(&envelope("1", 4, events().remove(3))), "1: the command 1-3 has left two events");
        check(|table| table.event(&envelope("1", 6, events().remove(3))), "1: event 5 of the log has ce_sequence 6");
        check(|table| table.event(&envelope("2", 1, events().remove(0))), "2: the log has it, the store does not");
        check(|table| table.state("3", &Loan::default()), "3: the store has it, the log does not");
        check(|table| table.state("1", &Loan::default()), "1: the store differs from the fold of the log");
        check(|table| table.state("1", &given::<Loan>(events()).state()), "1: the store has it twice");
    }

    #[test]
    fn thousands_are_grouped() {
        assert_eq!([0, 999, 1000, 177_634_511].map(grouped), ["0", "999", "1,000", "177,634,511"]);
    }
}
