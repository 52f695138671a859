use es_core::{Event, event};

#[event(aggregate = "account")]
#[derive(Clone, Debug)]
pub enum Tuples {
    Opened(String),
    Moved(u64, u64),
    Fine { amount: u64 },
}

// What was generated in spite of the errors can be used: no others follow.
fn opened(event: Opened) -> Tuples {
    let _ = Tuples::TYPES;
    event.into()
}

mod generic {
    #[es_core::event(aggregate = "account")]
    #[derive(Clone, Debug)]
    pub enum Generic<T> {
        Opened { owner: T },
    }
}

mod settings {
    #[es_core::event(agregate = "account", codec = es_core::Json, codec = es_core::Json)]
    #[derive(Clone, Debug)]
    pub enum Misspelt {
        #[event(nmae = "opened")]
        Opened {
            #[event(name = "holder")]
            owner: String,
        },
        #[event(name = "")]
        Empty,
        #[event(name = Moved)]
        Moved,
    }

    #[es_core::event(aggregate = "my account")]
    #[derive(Clone, Debug)]
    pub enum NoTopic {
        Renamed,
    }

    #[es_core::event(aggregate = "account")]
    #[derive(Clone, Debug)]
    pub enum Nothing {}
}

mod names {
    #[es_core::event(aggregate = "account")]
    #[derive(Clone, Debug)]
    pub enum Twice {
        Opened,
        #[event(name = "Opened")]
        Reopened,
        #[event(struct = Shut)]
        Closed,
        #[event(struct = Shut)]
        Locked,
        Ok,
    }

    #[es_core::event(aggregate = "account")]
    #[derive(Clone, Debug)]
    pub enum Tag {
        Typed { r#type: String },
        Versioned { version: u32 },
        #[serde(rename = "moved", rename_all = "camelCase")]
        Moved {
            #[serde(rename = "type")]
            kind: String,
        },
    }
}

#[event(aggregate = "account")]
pub struct NoEnum {
    amount: u64,
}

fn main() {
    opened(Opened);
}
