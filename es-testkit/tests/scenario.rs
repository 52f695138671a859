//! given/when/then on a small parcel service: what passes, and what a failure says.

use es_core::{Aggregate, Command, Context, Decide, Decision, Draft, emit, event, nothing, reject};
use es_testkit::given;
use serde::{Deserialize, Serialize};

#[event(aggregate = "parcel")]
#[derive(Clone, Debug, PartialEq)]
enum ParcelEvent {
    Accepted { to: String, grams: u32 },
    Scanned { hub: String, minute: u64 },
    Delivered,
}

#[derive(Command, Debug)]
enum ParcelCommand {
    Accept { to: String, grams: u32 },
    Arrive { hub: String, last: bool },
    Panic,
}

#[derive(Aggregate, Default, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[aggregate(id = String, event = ParcelEvent, version = 1)]
struct Parcel {
    #[fold(Accepted => set(Some(to)))]
    to: Option<String>,
    #[fold(Scanned => push((hub, minute)))]
    trail: Vec<(String, u64)>,
    #[fold(Accepted => add(grams))]
    grams: u32,
    #[fold(Delivered => set(true))]
    delivered: bool,
}

#[derive(Debug, PartialEq, Serialize)]
enum Refusal {
    TooHeavy { by: u32 },
    Twice { id: String, command: String, sequence: u64 },
}

impl Decide for Parcel {
    type Command = ParcelCommand;
    type Rejection = Refusal;

    fn decide(&self, command: &ParcelCommand, context: &Context<'_>) -> Decision<Self> {
        match (self.to.is_some(), command) {
            (false, ParcelCommand::Accept { grams, .. }) if *grams > 30_000 => reject(Refusal::TooHeavy { by: grams - 30_000 }),
            (false, ParcelCommand::Accept { to, grams }) => emit(Accepted { to: to.clone(), grams: *grams }),
            (true, ParcelCommand::Accept { .. }) => reject(Refusal::Twice {
                id: context.aggregate_id.to_owned(),
                command: context.command_id.to_owned(),
                sequence: context.sequence,
            }),
            (true, ParcelCommand::Arrive { hub, last }) if !self.delivered => {
                let mut next = Draft::of(self);
                next.emit(Scanned { hub: hub.clone(), minute: context.minute() });
                if *last {
                    next.emit(Delivered);
                }
                next.done()
            }
            (_, ParcelCommand::Arrive { .. }) => nothing(),
            (_, ParcelCommand::Panic) => panic!("cannot decide this"),
        }
    }
}

fn accepted() -> Accepted {
    Accepted { to: "Ada".into(), grams: 5 }
}

fn arrive(last: bool) -> ParcelCommand {
    ParcelCommand::Arrive { hub: "Ulm".into(), last }
}

fn accept(grams: u32) -> ParcelCommand {
    ParcelCommand::Accept { to: "Ada".into(), grams }
}

#[test]
fn a_scenario_reads_as_a_sentence() {
    given::<Parcel>(accepted())
        .at(120_000)
        .when(arrive(true))
        .then((Scanned { hub: "Ulm".into(), minute: 2 }, Delivered))
        .then_state(|parcel| parcel.delivered)
        .then_state(|parcel| assert_eq!(parcel.trail, [("Ulm".to_owned(), 2)]));
    given::<Parcel>(()).when(accept(30_007)).then_rejected(Refusal::TooHeavy { by: 7 });
    given::<Parcel>([accepted()]).when(accept(1)).then_rejected_with(|r| matches!(r, Refusal::Twice { .. }));
    given::<Parcel>((accepted(), Delivered)).when(arrive(true)).then_nothing().then([] as [Delivered; 0]);
}

#[test]
fn the_context_is_what_the_scenario_says() {
    given::<Parcel>((accepted(), Delivered))
        .with_command_id("c-1")
        .with_aggregate_id("p-1")
        .when(accept(1))
        .then_rejected(Refusal::Twice { id: "p-1".into(), command: "c-1".into(), sequence: 2 });
}

#[test]
fn a_history_alone_gives_its_state() {
    assert_eq!(given::<Parcel>(accepted()).state().grams, 5);
}

/// Runs a scenario that fails, and returns what it says.
fn failure(scenario: impl FnOnce()) -> String {
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(scenario)).expect_err("the scenario passed");
    *panic.downcast::<String>().expect("a formatted message")
}

#[test]
fn other_events_are_shown_as_a_line_diff() {
    let text = failure(|| {
        let _ = given::<Parcel>(accepted()).when(arrive(false)).then((Scanned { hub: "Bonn".into(), minute: 0 }, Delivered));
    });
    assert_eq!(
        text,
        "when Arrive { hub: \"Ulm\", last: false }: the events are not the expected ones (- expected, + actual)
  [
      Scanned {
-         hub: \"Bonn\",
+         hub: \"Ulm\",
          minute: 0,
      },
-     Delivered,
  ]"
    );
}

#[test]
fn a_failure_says_what_was_decided_instead() {
    let check = |scenario: fn(), expected: &str| {
        let text = failure(scenario);
        assert!(text.contains(expected), "`{expected}` is not in\n{text}");
    };
    check(|| drop(given::<Parcel>(()).when(accept(30_001)).then(accepted())), "but it was rejected with\n+ TooHeavy {\n+     by: 1,\n+ }");
    check(|| drop(given::<Parcel>(()).when(arrive(true)).then(accepted())), "but there was nothing to do");
    check(
        || drop(given::<Parcel>(()).when(accept(1)).then_rejected(Refusal::TooHeavy { by: 1 })),
        "but it was accepted with\n+ [\n+     Accepted {",
    );
    check(|| drop(given::<Parcel>(()).when(accept(30_001)).then_rejected(Refusal::TooHeavy { by: 2 })), "-     by: 2,\n+     by: 1,");
    check(|| drop(given::<Parcel>(()).when(accept(30_001)).then_rejected_with(|r| matches!(r, Refusal::Twice { .. }))), "TooHeavy");
    check(|| drop(given::<Parcel>(()).when(accept(1)).then_nothing()), "expected nothing to do, but it was accepted with");
    check(
        || drop(given::<Parcel>(()).when(accept(1)).then_state(|parcel| parcel.delivered)),
        "the check does not hold for the state\n+ Parcel {",
    );
}

#[test]
fn panics_are_reported_with_command_or_event() {
    let text = failure(|| drop(given::<Parcel>(()).when(ParcelCommand::Panic)));
    assert!(text.starts_with("law broken: decide does not panic\n`Panic` panicked: cannot decide this (at "), "{text}");
    let text = failure(|| drop(given::<Parcel>((accepted(), Accepted { to: "Bob".into(), grams: u32::MAX })).state()));
    assert!(
        text.starts_with("law broken: fold does not panic\n`Accepted` (event 2 of 2) panicked: `grams` overflows in `Accepted` (at "),
        "{text}"
    );
}
