//! The words of the log: which activity and transition stand for which command, and which for which event.

use crate::loan::{Entry, LoanCommand, LoanEvent, OfferStep, Stage, Work};
use crate::xes;
use std::fmt;

/// `lifecycle:transition`: what happened to an activity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transition {
    /// It is done.
    Complete,
    /// Somebody has started it.
    Start,
    /// It is planned.
    Schedule,
}

impl Transition {
    /// All of them, in the table's order.
    pub const ALL: [Transition; 3] = [Transition::Complete, Transition::Start, Transition::Schedule];

    /// Its name in the log.
    pub fn name(self) -> &'static str {
        match self {
            Transition::Complete => "COMPLETE",
            Transition::Start => "START",
            Transition::Schedule => "SCHEDULE",
        }
    }
}

/// What the log is about: `concept:name`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Activity {
    /// `A_…`: a stage of the application.
    Application(Stage),
    /// `O_…`: a step of an offer.
    Offer(OfferStep),
    /// `W_…`: work.
    Work(Work),
}

impl Activity {
    /// All of them with their names in the log, in the table's order.
    pub const ALL: [(Activity, &'static str); 24] = [
        (Activity::Application(Stage::Submitted), "A_SUBMITTED"),
        (Activity::Application(Stage::PartlySubmitted), "A_PARTLYSUBMITTED"),
        (Activity::Application(Stage::Declined), "A_DECLINED"),
        (Activity::Application(Stage::Cancelled), "A_CANCELLED"),
        (Activity::Application(Stage::Approved), "A_APPROVED"),
        (Activity::Application(Stage::Registered), "A_REGISTERED"),
        (Activity::Application(Stage::Activated), "A_ACTIVATED"),
        (Activity::Application(Stage::PreAccepted), "A_PREACCEPTED"),
        (Activity::Application(Stage::Accepted), "A_ACCEPTED"),
        (Activity::Application(Stage::Finalized), "A_FINALIZED"),
        (Activity::Offer(OfferStep::Selected), "O_SELECTED"),
        (Activity::Offer(OfferStep::Created), "O_CREATED"),
        (Activity::Offer(OfferStep::Sent), "O_SENT"),
        (Activity::Offer(OfferStep::Cancelled), "O_CANCELLED"),
        (Activity::Offer(OfferStep::SentBack), "O_SENT_BACK"),
        (Activity::Offer(OfferStep::Accepted), "O_ACCEPTED"),
        (Activity::Offer(OfferStep::Declined), "O_DECLINED"),
        (Activity::Work(Work::Completion), "W_Completeren aanvraag"),
        (Activity::Work(Work::OfferCalls), "W_Nabellen offertes"),
        (Activity::Work(Work::MissingPapers), "W_Nabellen incomplete dossiers"),
        (Activity::Work(Work::Validation), "W_Valideren aanvraag"),
        (Activity::Work(Work::Leads), "W_Afhandelen leads"),
        (Activity::Work(Work::Fraud), "W_Beoordelen fraude"),
        (Activity::Work(Work::ContractChange), "W_Wijzigen contractgegevens"),
    ];

    /// Its name in the log.
    ///
    /// # Panics
    /// Never: all activities are in [`ALL`](Activity::ALL).
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(activity, _)| *activity == self).expect("every activity is listed").1
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(activity, _)| *activity)
    }
}

impl LoanEvent {
    /// The entry of the log that it came from.
    pub fn entry(&self) -> &Entry {
        match self {
            LoanEvent::Submitted { entry, .. }
            | LoanEvent::Advanced { entry, .. }
            | LoanEvent::OfferMoved { entry, .. }
            | LoanEvent::WorkPlanned { entry, .. }
            | LoanEvent::WorkStarted { entry, .. }
            | LoanEvent::WorkCompleted { entry, .. } => entry,
        }
    }

    /// The words of the log for it.
    pub fn in_the_log(&self) -> (Activity, Transition) {
        match *self {
            LoanEvent::Submitted { .. } => (Activity::Application(Stage::Submitted), Transition::Complete),
            LoanEvent::Advanced { to, .. } => (Activity::Application(to), Transition::Complete),
            LoanEvent::OfferMoved { to, .. } => (Activity::Offer(to), Transition::Complete),
            LoanEvent::WorkPlanned { work, .. } => (Activity::Work(work), Transition::Schedule),
            LoanEvent::WorkStarted { work, .. } => (Activity::Work(work), Transition::Start),
            LoanEvent::WorkCompleted { work, .. } => (Activity::Work(work), Transition::Complete),
        }
    }
}

/// A trace is no loan application.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: trace `{trace}`: {what}")]
pub struct NoLoan {
    /// Where it stands in the file.
    pub line: u64,
    /// The trace's name.
    pub trace: String,
    /// What is wrong with it.
    pub what: What,
}

/// What is wrong with a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// It is submitted without saying for how much, or in words.
    Amount(Option<String>),
    /// No loan application has this activity.
    Activity(String),
    /// No activity has this transition.
    Transition(String),
    /// The activity does not have this transition: only work is scheduled and started.
    Pair(&'static str, &'static str),
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Amount(None) => f.write_str("it has no `AMOUNT_REQ`, the amount that is asked for"),
            What::Amount(Some(amount)) => write!(f, "its `AMOUNT_REQ` is `{amount}`, not a whole number of euros"),
            What::Activity(name) => {
                write!(f, "`{name}` is no activity of a loan application (such as A_SUBMITTED); is this the log that the README names?")
            }
            What::Transition(name) => write!(f, "`{name}` is no transition: one of SCHEDULE, START, COMPLETE is"),
            What::Pair(activity, transition) => write!(f, "`{activity}` has the transition `{transition}`, which only work (W_…) has"),
        }
    }
}

/// The commands that a trace of the log stands for, in their order.
///
/// # Errors
/// When the trace is no loan application.
pub fn commands(trace: &xes::Trace) -> Result<Vec<LoanCommand>, NoLoan> {
    (0..).zip(&trace.events).map(|(index, event)| command(trace, index, event)).collect()
}

fn command(trace: &xes::Trace, index: u64, event: &xes::Event) -> Result<LoanCommand, NoLoan> {
    let refuse = |what| NoLoan { line: event.line, trace: trace.name.clone(), what };
    let activity = Activity::named(&event.name).ok_or_else(|| refuse(What::Activity(event.name.clone())))?;
    // Without a lifecycle, an event tells that something is done.
    let transition = match event.transition.as_deref() {
        None => Transition::Complete,
        Some(name) => {
            let known = Transition::ALL.into_iter().find(|known| known.name() == name);
            known.ok_or_else(|| refuse(What::Transition(name.to_owned())))?
        }
    };
    let entry = Entry { index, at: event.time, by: event.resource.clone() };
    Ok(match (activity, transition) {
        (Activity::Application(Stage::Submitted), Transition::Complete) => {
            let amount = trace.attributes.get("AMOUNT_REQ");
            let euros = amount.and_then(|amount| amount.parse().ok());
            LoanCommand::Submit { entry, amount: euros.ok_or_else(|| refuse(What::Amount(amount.cloned())))? }
        }
        (Activity::Application(to), Transition::Complete) => LoanCommand::Advance { entry, to },
        (Activity::Offer(to), Transition::Complete) => LoanCommand::MoveOffer { entry, to },
        (Activity::Work(work), Transition::Schedule) => LoanCommand::Plan { entry, work },
        (Activity::Work(work), Transition::Start) => LoanCommand::Start { entry, work },
        (Activity::Work(work), Transition::Complete) => LoanCommand::Complete { entry, work },
        (activity, transition) => return Err(refuse(What::Pair(activity.name(), transition.name()))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn trace(events: &[(&str, Option<&str>)], amount: Option<&str>) -> xes::Trace {
        let event = |(line, (name, transition)): (u64, &(&str, Option<&str>))| xes::Event {
            line,
            name: (*name).to_owned(),
            transition: transition.map(str::to_owned),
            resource: Some("112".to_owned()),
            time: 1000 * line as i64,
        };
        let attributes = amount.map(|amount| ("AMOUNT_REQ".to_owned(), amount.to_owned()));
        let events = (2..).zip(events).map(event).collect();
        xes::Trace { line: 1, name: "173688".to_owned(), attributes: BTreeMap::from_iter(attributes), events }
    }

    #[test]
    fn entries_become_commands_in_their_order() {
        let entry = |index: u64| Entry { index, at: 1000 * (index as i64 + 2), by: Some("112".to_owned()) };
        let log = [
            ("A_SUBMITTED", Some("COMPLETE")),
            ("A_PARTLYSUBMITTED", None),
            ("W_Afhandelen leads", Some("SCHEDULE")),
            ("W_Afhandelen leads", Some("START")),
            ("W_Afhandelen leads", Some("COMPLETE")),
            ("O_SENT_BACK", Some("COMPLETE")),
        ];
        assert_eq!(
            commands(&trace(&log, Some("20000"))).unwrap(),
            [
                LoanCommand::Submit { entry: entry(0), amount: 20_000 },
                LoanCommand::Advance { entry: entry(1), to: Stage::PartlySubmitted },
                LoanCommand::Plan { entry: entry(2), work: Work::Leads },
                LoanCommand::Start { entry: entry(3), work: Work::Leads },
                LoanCommand::Complete { entry: entry(4), work: Work::Leads },
                LoanCommand::MoveOffer { entry: entry(5), to: OfferStep::SentBack },
            ]
        );
    }

    #[test]
    fn every_activity_has_a_name_of_its_own() {
        for (activity, name) in Activity::ALL {
            assert_eq!((activity.name(), Activity::named(name)), (name, Some(activity)));
        }
    }

    #[test]
    fn what_is_no_loan_is_told_with_its_line() {
        let cases = [
            (trace(&[("A_SUBMITTED", None)], None), "line 2: trace `173688`: it has no `AMOUNT_REQ`"),
            (trace(&[("A_SUBMITTED", None)], Some("1e3")), "line 2: trace `173688`: its `AMOUNT_REQ` is `1e3`, not a whole number"),
            (trace(&[("A_SUBMITTED", None), ("B_LOST", None)], Some("1")), "line 3: trace `173688`: `B_LOST` is no activity"),
            (trace(&[("A_SUBMITTED", Some("SUSPEND"))], Some("1")), "line 2: trace `173688`: `SUSPEND` is no transition"),
            (trace(&[("O_SENT", Some("START"))], Some("1")), "line 2: trace `173688`: `O_SENT` has the transition `START`"),
        ];
        for (trace, message) in cases {
            let error = commands(&trace).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }
}
