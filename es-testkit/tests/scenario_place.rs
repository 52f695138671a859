//! A failed scenario points at the test's own line. Alone in its binary, because it sets the panic hook.

#![allow(missing_docs, unreachable_pub, reason = "a test's domain")]

mod domain;

use es_core::Fold;
use es_testkit::given;
use serde::{Deserialize, Serialize};
use std::sync::Mutex;

events! { CountEvent of "count" { Counted { by: u8 } } }

#[derive(Default, Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Count(u8);
aggregate!(Count, CountEvent);

impl Fold<Counted> for Count {
    fn fold(&mut self, Counted { by }: Counted) {
        self.0 = self.0.checked_add(by).expect("the count overflowed");
    }
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
