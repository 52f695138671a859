//! The whole surface in one small domain: what a user writes, and what it does.

#![allow(missing_docs)]

use es_core::{Aggregate, Command, Context, Decide, Decision, Draft, Fold, emit, event, nothing, reject};
use serde::{Deserialize, Serialize};

#[event(aggregate = "parcel")]
#[derive(Clone, Debug, PartialEq)]
pub enum ParcelEvent {
    Accepted {
        to: String,
        grams: u32,
    },
    #[event(version = 2, upcast(1 = ScannedV1))]
    Scanned {
        hub: String,
        minute: u64,
    },
    Returned {
        why: String,
    },
    Delivered,
}

#[derive(Deserialize)]
pub struct ScannedV1 {
    hub: String,
}

impl From<ScannedV1> for Scanned {
    fn from(old: ScannedV1) -> Self {
        Scanned { hub: old.hub, minute: 0 }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Stage {
    #[default]
    Unknown,
    Moving,
    Done,
}

#[derive(Aggregate, Default, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[aggregate(id = String, event = ParcelEvent, version = 1)]
pub struct Parcel {
    #[fold(Accepted => set(Stage::Moving), Delivered => set(Stage::Done))]
    pub stage: Stage,
    #[fold(Accepted => set(Some(to)))]
    pub to: Option<String>,
    #[fold(Scanned => push((hub, minute)))]
    pub trail: Vec<(String, u64)>,
}

impl Fold<Returned> for Parcel {
    fn fold(&mut self, Returned { .. }: Returned) {
        self.to = None;
        self.trail.clear();
    }
}

#[derive(Command, Debug, PartialEq)]
pub enum ParcelCommand {
    Accept { to: String, grams: u32 },
    Arrive { hub: String, last: bool },
}

#[derive(Debug, PartialEq, Serialize)]
pub enum Refusal {
    TooHeavy { by: u32 },
    Twice,
}

impl Decide for Parcel {
    type Command = ParcelCommand;
    type Rejection = Refusal;

    fn decide(&self, command: &ParcelCommand, context: &Context<'_>) -> Decision<Self, Refusal> {
        match (self.stage, command) {
            (Stage::Unknown, ParcelCommand::Accept { grams, .. }) if *grams > 30_000 => reject(Refusal::TooHeavy { by: grams - 30_000 }),
            (Stage::Unknown, ParcelCommand::Accept { to, grams }) => emit(Accepted { to: to.clone(), grams: *grams }),
            (_, ParcelCommand::Accept { .. }) => reject(Refusal::Twice),
            (Stage::Moving, ParcelCommand::Arrive { hub, last }) => {
                let mut next = Draft::of(self);
                next.emit(Scanned { hub: hub.clone(), minute: context.minute() });
                if *last {
                    next.emit(Delivered);
                }
                next.done()
            }
            (Stage::Unknown | Stage::Done, ParcelCommand::Arrive { .. }) => nothing(),
        }
    }
}

fn decide(state: &Parcel, command: ParcelCommand) -> Result<Vec<ParcelEvent>, Refusal> {
    let context = Context { aggregate_id: "p1", command_id: "c1", time: 120_000, sequence: 0 };
    state.decide(&command, &context).map(|events| events.into_vec())
}

#[test]
fn a_parcel_goes_its_way() {
    let mut parcel = Parcel::default();
    let accepted = decide(&parcel, ParcelCommand::Accept { to: "Ada".into(), grams: 5 }).unwrap();
    assert_eq!(accepted, [ParcelEvent::Accepted { to: "Ada".into(), grams: 5 }]);
    accepted.into_iter().for_each(|event| parcel.apply(event));
    let arrived = decide(&parcel, ParcelCommand::Arrive { hub: "Ulm".into(), last: true }).unwrap();
    assert_eq!(arrived, [Scanned { hub: "Ulm".into(), minute: 2 }.into(), ParcelEvent::Delivered]);
    arrived.into_iter().for_each(|event| parcel.apply(event));
    assert_eq!(parcel, Parcel { stage: Stage::Done, to: Some("Ada".into()), trail: vec![("Ulm".into(), 2)] });
    assert_eq!(decide(&parcel, ParcelCommand::Accept { to: "Ada".into(), grams: 5 }), Err(Refusal::Twice));
    parcel.apply(Returned { why: "nobody at home".into() }.into());
    assert_eq!(parcel, Parcel { stage: Stage::Done, to: None, trail: vec![] });
}
