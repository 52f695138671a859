use super::*;
use LoanCommand::{Advance, Complete, MoveOffer, Plan, Start, Submit};
use es_testkit::given;

fn entry(index: u64) -> Entry {
    Entry { index, at: 1000 * index as Millis, by: None }
}

/// The events of an application that reached this stage on the straight way, one a second.
fn straight_to(last: Stage) -> Vec<LoanEvent> {
    use Stage::*;
    let way = [PartlySubmitted, PreAccepted, Accepted, Finalized];
    let steps = way.iter().position(|stage| *stage == last).map_or(0, |position| position + 1);
    let advanced = (1..).zip(&way[..steps]).map(|(index, to)| Advanced { entry: entry(index), to: *to }.into());
    [LoanEvent::Submitted { entry: entry(0), amount: 5000 }].into_iter().chain(advanced).collect()
}

/// That, and one work item planned.
fn planned(work: Work, last: Stage) -> Vec<LoanEvent> {
    let mut events = straight_to(last);
    events.push(WorkPlanned { entry: entry(events.len() as u64), work }.into());
    events
}

/// An application that is ready for offers, and these steps of them.
fn offers(steps: &[OfferStep]) -> Vec<LoanEvent> {
    let mut events = straight_to(Stage::Finalized);
    for to in steps {
        events.push(OfferMoved { entry: entry(events.len() as u64), to: *to }.into());
    }
    events
}

fn decide(history: &[LoanEvent], command: impl FnOnce(Entry) -> LoanCommand) -> es_testkit::scenario::Decided<Loan> {
    given::<Loan>(history.to_vec()).when(command(entry(history.len() as u64)))
}

#[test]
fn an_application_is_submitted_first_and_once() {
    let submit = |entry| Submit { entry, amount: 5000 };
    decide(&[], submit)
        .then(Submitted { entry: entry(0), amount: 5000 })
        .then_state(|loan| loan.stage() == Some(Stage::Submitted) && loan.amount == 5000);
    decide(&[], |entry| Advance { entry, to: Stage::PartlySubmitted }).then_rejected(Refusal::NotSubmitted);
    decide(&straight_to(Stage::Submitted), submit).then_rejected(Refusal::AlreadySubmitted);
}

#[test]
fn an_entry_is_taken_once_and_none_is_left_out() {
    let history = straight_to(Stage::PreAccepted);
    for index in 0..3 {
        given::<Loan>(history.clone()).when(Advance { entry: entry(index), to: Stage::Declined }).then_nothing();
    }
    given::<Loan>(history).when(Advance { entry: entry(4), to: Stage::Accepted }).then_rejected(Refusal::Gap { expected: 3 });
    given::<Loan>(()).when(Submit { entry: entry(1), amount: 1 }).then_rejected(Refusal::Gap { expected: 0 });
}

#[test]
fn time_may_stand_still_and_never_goes_back() {
    let at = |at| Entry { at, ..entry(2) };
    let advance = |time| given::<Loan>(straight_to(Stage::PartlySubmitted)).when(Advance { entry: at(time), to: Stage::PreAccepted });
    advance(1000).then(Advanced { entry: at(1000), to: Stage::PreAccepted });
    advance(999).then_rejected(Refusal::BackInTime { last: 1000 });
}

#[test]
fn stages_follow_one_another() {
    use Stage::*;
    for (from, legal) in [
        (Submitted, &[PartlySubmitted][..]),
        (PartlySubmitted, &[PreAccepted, Declined, Cancelled]),
        (PreAccepted, &[Accepted, Declined, Cancelled]),
        (Accepted, &[Finalized, Declined, Cancelled]),
        (Finalized, &[Approved, Registered, Activated, Declined, Cancelled]),
    ] {
        let history = straight_to(from);
        for to in [Submitted, PartlySubmitted, PreAccepted, Accepted, Finalized, Approved, Registered, Activated, Declined, Cancelled] {
            let decided = decide(&history, |entry| Advance { entry, to });
            if legal.contains(&to) {
                decided.then(Advanced { entry: entry(history.len() as u64), to });
            } else {
                decided.then_rejected(Refusal::Stage { from, to });
            }
        }
    }
}

#[test]
fn the_parts_of_granting_come_in_any_order_and_once() {
    let mut history = straight_to(Stage::Finalized);
    for to in [Stage::Activated, Stage::Approved, Stage::Registered] {
        let index = history.len() as u64;
        decide(&history, |entry| Advance { entry, to }).then(Advanced { entry: entry(index), to });
        history.push(Advanced { entry: entry(index), to }.into());
        for again in [to, Stage::Activated, Stage::Declined, Stage::Cancelled] {
            decide(&history, |entry| Advance { entry, to: again }).then_rejected(Refusal::Stage { from: to, to: again });
        }
    }
}

#[test]
fn nothing_follows_a_declined_or_cancelled_application_but_what_closes_it() {
    for end in [Stage::Declined, Stage::Cancelled] {
        let mut history = straight_to(Stage::Accepted);
        let index = history.len() as u64;
        history.push(Advanced { entry: entry(index), to: end }.into());
        decide(&history, |entry| Advance { entry, to: Stage::Finalized }).then_rejected(Refusal::Stage { from: end, to: Stage::Finalized });
        decide(&history, |entry| MoveOffer { entry, to: OfferStep::Selected })
            .then_rejected(Refusal::OfferAtStage { to: OfferStep::Selected, stage: end });
        decide(&history, |entry| Plan { entry, work: Work::Validation })
            .then_rejected(Refusal::WorkAtStage { work: Work::Validation, stage: end });
    }
}

#[test]
fn offers_take_turns() {
    use OfferStep::*;
    for (so_far, legal) in [
        (&[][..], &[Selected][..]),
        (&[Selected], &[Created]),
        (&[Selected, Created], &[Sent]),
        (&[Selected, Created, Sent], &[Selected, SentBack, Accepted, Declined, Cancelled]),
        (&[Selected, Created, Sent, SentBack], &[Selected, Accepted, Declined, Cancelled]),
        (&[Selected, Created, Sent, Selected], &[SentBack, Accepted, Declined, Cancelled]),
        (&[Selected, Created, Sent, Selected, Cancelled], &[Created]),
        (&[Selected, Created, Sent, Accepted], &[Selected]),
    ] {
        let history = offers(so_far);
        let state: Loan = given::<Loan>(history.clone()).state();
        for to in [Selected, Created, Sent, SentBack, Accepted, Declined, Cancelled] {
            let decided = decide(&history, |entry| MoveOffer { entry, to });
            match legal.contains(&to) {
                true => decided.then(OfferMoved { entry: entry(history.len() as u64), to }),
                false => decided.then_rejected(Refusal::Offer { to, offers: state.offers.clone() }),
            };
        }
    }
}

#[test]
fn offers_are_chosen_from_acceptance_on_and_made_once_all_is_final() {
    let refused = |stage, to| {
        decide(&straight_to(stage), |entry| MoveOffer { entry, to }).then_rejected(Refusal::OfferAtStage { to, stage });
    };
    refused(Stage::PreAccepted, OfferStep::Selected);
    refused(Stage::Accepted, OfferStep::Created);
    let accepted = straight_to(Stage::Accepted);
    decide(&accepted, |entry| MoveOffer { entry, to: OfferStep::Selected }).then(OfferMoved { entry: entry(4), to: OfferStep::Selected });
}

#[test]
fn work_is_planned_started_and_completed() {
    let work = Work::Validation;
    let planned = planned(work, Stage::Finalized);
    decide(&straight_to(Stage::Finalized), |entry| Start { entry, work }).then_rejected(Refusal::NotPlanned { work });
    decide(&straight_to(Stage::Finalized), |entry| Complete { entry, work }).then_rejected(Refusal::NotPlanned { work });
    decide(&straight_to(Stage::Accepted), |entry| Plan { entry, work })
        .then_rejected(Refusal::WorkAtStage { work, stage: Stage::Accepted });
    let index = planned.len() as u64;
    decide(&planned, |entry| Start { entry, work })
        .then(WorkStarted { entry: entry(index), work })
        .then_state(|loan| loan.open_work() == 1);
    decide(&planned, |entry| Complete { entry, work })
        .then(WorkCompleted { entry: entry(index), work })
        .then_state(|loan| loan.open_work() == 0);
    let mut history = planned;
    history.push(WorkStarted { entry: entry(index), work }.into());
    decide(&history, |entry| Start { entry, work }).then_rejected(Refusal::AllRunning { work });
    history.push(WorkCompleted { entry: entry(index + 1), work }.into());
    decide(&history, |entry| Start { entry, work })
        .then(WorkStarted { entry: entry(index + 2), work })
        .then_state(|loan| loan.open_work() == 1);
}

#[test]
fn a_declined_application_starts_no_work_and_completes_what_is_open() {
    let work = Work::Leads;
    let mut history = planned(work, Stage::PartlySubmitted);
    history.push(Advanced { entry: entry(3), to: Stage::Declined }.into());
    decide(&history, |entry| Start { entry, work }).then_rejected(Refusal::WorkAtStage { work, stage: Stage::Declined });
    decide(&history, |entry| Complete { entry, work }).then(WorkCompleted { entry: entry(4), work });
}

#[test]
fn time_in_a_stage_runs_until_the_next_one_or_the_last_entry() {
    let mut history = straight_to(Stage::PartlySubmitted);
    let late = Entry { at: 5_000, ..entry(2) };
    history.push(WorkPlanned { entry: late, work: Work::Leads }.into());
    let loan: Loan = given::<Loan>(history).state();
    assert_eq!(loan.time_in_stages().collect::<Vec<_>>(), [(Stage::Submitted, 1000), (Stage::PartlySubmitted, 4000)]);
}

es_testkit::laws!(Loan);
