//! A failed scenario points at the test's own line. Alone in its binary, because it sets the panic hook.

use es_core::{Aggregate, event};
use es_testkit::given;
use serde::{Deserialize, Serialize};
use std::sync::Mutex;

#[event(aggregate = "count")]
#[derive(Clone, Debug, PartialEq)]
enum CountEvent {
    Counted { by: u8 },
}

#[derive(Aggregate, Default, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[aggregate(id = String, event = CountEvent, version = 1)]
struct Count {
    #[fold(Counted => add(by))]
    sum: u8,
}

#[test]
fn a_failure_points_at_the_scenario() {
    static PLACE: Mutex<Option<(String, u32)>> = Mutex::new(None);
    std::panic::set_hook(Box::new(|info| {
        *PLACE.lock().unwrap() = info.location().map(|place| (place.file().to_owned(), place.line()));
    }));
    let expected = (file!().to_owned(), line!() + 1);
    let failed = std::panic::catch_unwind(|| given::<Count>([Counted { by: 255 }, Counted { by: 1 }]).state());
    let place = PLACE.lock().unwrap().take();
    let _ = std::panic::take_hook();
    assert!(failed.is_err());
    assert_eq!(place, Some(expected));
}
