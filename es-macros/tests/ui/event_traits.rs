use es_core::{Aggregate, Decision, emit, event};
use serde::{Deserialize, Serialize};

#[event(aggregate = "account")]
pub enum NotClone {
    Opened { owner: String },
}

#[event(aggregate = "other")]
#[derive(Clone, Debug)]
pub enum OtherEvent {
    Closed,
}

#[derive(Aggregate, Clone, Serialize, Deserialize)]
#[aggregate(id = String, event = OtherEvent, ignores(Closed))]
pub struct NotDefault;

#[derive(Aggregate, Default, Clone, Serialize, Deserialize)]
#[aggregate(id = String, event = OtherEvent, ignores(Closed))]
pub struct Other;

fn decide() -> Decision<Other, ()> {
    emit(7)
}

fn main() {
    let _ = decide();
}
