//! What is done to which request: rules with probabilities, and strikes that a test commands.

use super::api::{Api, ErrorCode};
use super::request::Request;
use crate::simulation::Random;
use std::time::Duration;

/// What the proxy does to a request, or to its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Passes it on.
    Pass,
    /// Passes it on after a time. What the client sends later on this connection waits too, as with TCP.
    Delay(Duration),
    /// Passes the request on, and its answer after a time; later answers on this connection wait too.
    DelayReply(Duration),
    /// Swallows the request and cuts the connection.
    LoseRequest,
    /// Passes the request on, swallows the answer and cuts the connection.
    LoseReply,
    /// Passes the request on and, once it is answered, sends the same bytes to the broker again, on a connection of the proxy's own. Only
    /// then the client gets the first answer.
    Duplicate,
    /// Keeps the request's bytes, cuts the connection, and sends the bytes to the broker later, on a connection of the proxy's own: what a
    /// network may do to a request whose client has given the connection up.
    Late(When),
    /// Passes the request on and puts this error into its answer. Answers that the proxy cannot read pass untouched.
    Falsify(ErrorCode),
    /// Answers the request with this error itself; the broker never sees it. Requests that the proxy has no answer for pass untouched.
    Refuse(ErrorCode),
}

/// When a request that was kept is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// So long after it was kept.
    After(Duration),
    /// Once the broker has taken records of a later request of the same transactional id; the answer to these records waits until then. So
    /// it lands in the midst of the client's next transaction.
    NextProduced,
    /// The same, once the broker has answered a later request of this kind.
    NextAnswered(Api),
    /// When [`StrikeHandle::release`](super::StrikeHandle::release) or [`Proxy::release`](super::Proxy::release) is called.
    Released,
}

impl When {
    /// The kind of request that it waits for.
    pub(super) fn awaited(self) -> Option<Api> {
        match self {
            When::NextProduced => Some(Api::PRODUCE),
            When::NextAnswered(api) => Some(api),
            When::After(_) | When::Released => None,
        }
    }
}

/// What was done, as the [counts](super::Proxy::counts) name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Deed {
    /// A request was passed on as it came.
    Passed,
    /// A request waited.
    Delayed,
    /// An answer waited.
    ReplyDelayed,
    /// A request was swallowed.
    RequestLost,
    /// An answer was swallowed.
    ReplyLost,
    /// A request was sent a second time.
    Duplicated,
    /// A request was kept, to be delivered late.
    Kept,
    /// A request that was kept was delivered.
    DeliveredLate,
    /// An answer got another error.
    Falsified,
    /// A request was answered by the proxy.
    Refused,
    /// A request or an answer waited for the end of a black hole.
    Held,
    /// A connection was cut by [`Proxy::cut_all`](super::Proxy::cut_all).
    Cut,
}

/// Which requests are meant: those in which everything that is named here is as it says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    api: Option<Api>,
    transactional_id: Option<String>,
    group: Option<String>,
    client_id: Option<String>,
    commit: Option<bool>,
}

impl Choice {
    /// All requests.
    pub fn any() -> Self {
        Choice::default()
    }

    /// All requests of a kind.
    pub fn of(api: Api) -> Self {
        Choice { api: Some(api), ..Choice::default() }
    }

    /// Those of them that bear this transactional id.
    pub fn transaction(self, id: &str) -> Self {
        Choice { transactional_id: Some(id.into()), ..self }
    }

    /// Those of them that bear this group.
    pub fn group(self, id: &str) -> Self {
        Choice { group: Some(id.into()), ..self }
    }

    /// Those of them whose client calls itself so (`client.id`).
    pub fn client(self, id: &str) -> Self {
        Choice { client_id: Some(id.into()), ..self }
    }

    /// Those of them that commit.
    pub fn commits(self) -> Self {
        Choice { commit: Some(true), ..self }
    }

    /// Those of them that abort.
    pub fn aborts(self) -> Self {
        Choice { commit: Some(false), ..self }
    }

    /// Whether a request is meant.
    pub fn means(&self, request: &Request) -> bool {
        fn is<T: PartialEq>(wanted: &Option<T>, found: &Option<T>) -> bool {
            wanted.is_none() || wanted == found
        }
        self.api.is_none_or(|api| api == request.api)
            && is(&self.transactional_id, &request.transactional_id)
            && is(&self.group, &request.group)
            && is(&self.client_id, &request.client_id)
            && is(&self.commit, &request.commit)
    }
}

/// Something that is done to some requests, by chance.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// To which.
    pub choice: Choice,
    /// In how many cases of one: 0.01 is one in a hundred.
    pub chance: f64,
    /// What.
    pub action: Action,
}

/// Rules, of which the first that hits counts. By default there is none: everything passes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rules(pub Vec<Rule>);

impl Rules {
    /// These rules and one more.
    pub fn rule(mut self, choice: Choice, chance: f64, action: Action) -> Self {
        self.0.push(Rule { choice, chance, action });
        self
    }

    /// What is to be done to a request. Each rule that means it draws one number.
    pub(super) fn draw(&self, request: &Request, random: &mut Random) -> Action {
        const DIGITS: u32 = 53;
        let mut drawn = || (random.next() >> (u64::BITS - DIGITS)) as f64 / (1u64 << DIGITS) as f64;
        let hit = self.0.iter().filter(|rule| rule.choice.means(request)).find(|rule| drawn() < rule.chance);
        hit.map_or(Action::Pass, |rule| rule.action)
    }
}

/// Something that is done to the next requests of a choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strike {
    pub(super) choice: Choice,
    pub(super) action: Action,
    pub(super) pass_first: u64,
    pub(super) times: u64,
}

impl Strike {
    /// Does it to the next request of the choice.
    pub fn next(choice: Choice, action: Action) -> Self {
        Strike { choice, action, pass_first: 0, times: 1 }
    }

    /// Lets so many requests of the choice pass first.
    pub fn passing_first(self, count: u64) -> Self {
        Strike { pass_first: count, ..self }
    }

    /// Does it to so many requests in turn.
    pub fn times(self, times: u64) -> Self {
        Strike { times, ..self }
    }

    /// Does it to every one, until it is [withdrawn](super::StrikeHandle::withdraw).
    pub fn always(self) -> Self {
        self.times(u64::MAX)
    }

    /// Whether it will never strike again.
    pub(super) fn is_used_up(&self) -> bool {
        self.times == 0
    }

    /// Whether it strikes this request; counts down.
    pub(super) fn takes(&mut self, request: &Request) -> bool {
        if self.times == 0 || !self.choice.means(request) {
            return false;
        }
        if self.pass_first > 0 {
            self.pass_first -= 1;
            return false;
        }
        self.times -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(id: &str, commit: bool) -> Request {
        Request {
            api: Api::END_TXN,
            version: 1,
            correlation: 1,
            client_id: Some("me".into()),
            transactional_id: Some(id.into()),
            producer: None,
            commit: Some(commit),
            group: None,
        }
    }

    #[test]
    fn a_choice_means_what_has_all_that_it_names() {
        let check = |choice: Choice, means| assert_eq!(choice.means(&end("a", true)), means, "{choice:?}");
        check(Choice::any(), true);
        check(Choice::of(Api::END_TXN), true);
        check(Choice::of(Api::PRODUCE), false);
        check(Choice::of(Api::END_TXN).transaction("a").commits().client("me"), true);
        check(Choice::of(Api::END_TXN).transaction("b"), false);
        check(Choice::of(Api::END_TXN).aborts(), false);
        check(Choice::any().group("g"), false);
        check(Choice::any().client("you"), false);
    }

    #[test]
    fn rules_strike_as_often_as_their_chances_say_and_the_same_for_the_same_seed() {
        let rules = Rules::default()
            .rule(Choice::of(Api::PRODUCE), 1.0, Action::Duplicate)
            .rule(Choice::of(Api::END_TXN), 0.1, Action::LoseReply)
            .rule(Choice::any(), 0.25, Action::LoseRequest);
        let draws = |seed| -> Vec<Action> {
            let mut random = Random::new(seed);
            (0..10_000).map(|_| rules.draw(&end("a", true), &mut random)).collect()
        };
        let drawn = draws(7);
        let count = |action| drawn.iter().filter(|drawn| **drawn == action).count();
        assert!((900..1100).contains(&count(Action::LoseReply)), "{}", count(Action::LoseReply));
        // A quarter of what the rule before it left.
        assert!((2100..2400).contains(&count(Action::LoseRequest)), "{}", count(Action::LoseRequest));
        assert_eq!(count(Action::Duplicate), 0);
        assert_eq!(drawn, draws(7));
        assert_ne!(drawn, draws(8));
    }

    #[test]
    fn the_first_rule_that_hits_counts_and_without_rules_all_pass() {
        let mut random = Random::new(1);
        assert_eq!(Rules::default().draw(&end("a", true), &mut random), Action::Pass);
        let rules = Rules::default().rule(Choice::any(), 0.0, Action::LoseReply).rule(Choice::any(), 1.0, Action::Duplicate);
        assert_eq!(rules.draw(&end("a", true), &mut random), Action::Duplicate);
    }

    #[test]
    fn a_strike_lets_pass_strikes_and_is_used_up() {
        let mut strike = Strike::next(Choice::any().transaction("a"), Action::LoseReply).passing_first(1).times(2);
        let struck: Vec<bool> = ["a", "b", "a", "b", "a", "a"].iter().map(|id| strike.takes(&end(id, true))).collect();
        assert_eq!(struck, [false, false, true, false, true, false]);
        let mut always = Strike::next(Choice::any(), Action::LoseReply).always();
        assert!((0..1000).all(|_| always.takes(&end("a", true))));
    }
}
