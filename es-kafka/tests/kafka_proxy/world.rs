//! The broker behind the proxy that all tests of this target share, one after the other.

use es_testkit::kafka_server::{Server, ServerOptions};
use es_testkit::proxy::{Proxy, Rules};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a test waits for anything.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A broker whose second listener is reached through the proxy alone.
pub(crate) struct World {
    pub(crate) kafka: Server,
    pub(crate) proxy: Proxy,
}

/// The world for one test at a time: what one does to the network would concern the others.
pub(crate) struct Turn(MutexGuard<'static, Option<World>>);

impl World {
    /// Waits for its turn; the broker is started by the first test. The network is whole.
    pub(crate) fn turn() -> Turn {
        static WORLD: Mutex<Option<World>> = Mutex::new(None);
        let mut world = WORLD.lock().unwrap_or_else(PoisonError::into_inner);
        let here = world.get_or_insert_with(|| {
            let kafka = Server::start(ServerOptions { proxied: true, ..ServerOptions::default() }).unwrap();
            let proxied = kafka.proxied().unwrap();
            World { proxy: Proxy::start(proxied.listen, proxied.upstream, 7).unwrap(), kafka }
        });
        // What a test that failed has left.
        here.proxy.set_rules(Rules::default());
        here.proxy.withdraw_all();
        here.proxy.heal();
        here.proxy.throttle(None);
        Turn(world)
    }

    /// `bootstrap.servers` of who is to be behind the proxy.
    pub(crate) fn proxied_servers(&self) -> String {
        self.proxy.address().to_string()
    }
}

impl std::ops::Deref for Turn {
    type Target = World;

    fn deref(&self) -> &World {
        self.0.as_ref().expect("made when the turn was taken")
    }
}

impl std::ops::DerefMut for Turn {
    fn deref_mut(&mut self) -> &mut World {
        self.0.as_mut().expect("made when the turn was taken")
    }
}
