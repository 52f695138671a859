//! A client of the queries: it learns where each partition is, asks the owner itself, and follows it where it goes.

use crate::http::{self, Http};
use crate::sender::Written;
use crate::settings::{Settings, Value as _};
use es_core::Aggregate;
use es_core::partition::partition_of;
use http_body_util::{BodyExt, Empty};
use hyper::header::{AUTHORIZATION, HeaderValue};
use hyper::{Request, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a question may take beside what it may wait, all tries together.
const PATIENCE: Duration = Duration::from_secs(10);
/// The first pause before another try; each further one is twice as long, up to [`LONGEST`].
const PAUSE: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_millis(500);

/// Asks the processes of an application for committed state. It hashes a key as the producers of commands do and goes straight to the partition's owner; where
/// that has moved it follows, for a bounded time. Share one: it keeps its connections.
///
/// It runs on tokio: call it inside of a runtime with time and I/O enabled.
///
/// ```no_run
/// # use es_kafka::{Decide, QueryClient, Reading, Sender, Settings};
/// # async fn read<Account: Decide>(mut sender: Sender<Account>, command: Account::Command) -> Result<(), Box<dyn std::error::Error>> {
/// let client = QueryClient::new(&["bank-1:8080".to_owned()], &Settings::new("bank"))?;
/// let written = sender.send_and_wait("acct-1", "payment-17", &command, std::time::Duration::from_secs(5))?;
/// let account = client.state::<Account>("acct-1", Reading::of(written)).await?;
/// # Ok(()) }
/// ```
pub struct QueryClient {
    http: Http,
    scheme: &'static str,
    authorization: Option<HeaderValue>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// Whom to ask for the way.
    endpoints: Vec<String>,
    components: BTreeMap<String, Vec<Option<String>>>,
    turn: usize,
}

/// What an answer must reflect, and how long it may wait for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// A command that was written: the answer shows what became of it.
    pub min_position: Option<Written>,
    /// How long the owner may wait for that, or for a restore.
    pub wait: Duration,
    /// Whether an answer is taken from a process that may not be the owner any more, or, without a `min_position`, from one that keeps a standby.
    pub stale: bool,
}

impl Reading {
    /// What is committed now.
    pub fn newest() -> Self {
        Reading { min_position: None, wait: Duration::ZERO, stale: false }
    }

    /// What is committed once this command has been processed; it is waited for up to 5 seconds.
    pub fn of(written: Written) -> Self {
        Reading { min_position: Some(written), wait: Duration::from_secs(5), stale: false }
    }

    /// What is committed now, or was some time ago: of the owner, or of a process with a standby, whose answer tells its [`lag_records`](State::lag_records).
    pub fn stale() -> Self {
        Reading { stale: true, ..Self::newest() }
    }

    /// The same with another time to wait.
    pub fn wait(self, wait: Duration) -> Self {
        Reading { wait, ..self }
    }
}

/// A committed state.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct State<A> {
    /// The aggregate's id.
    pub id: String,
    /// The number of events that made it.
    pub sequence: u64,
    /// The state.
    pub state: A,
    /// Where a standby has answered: the records of the log that it had not folded when it last heard of the log's end. `None`: the owner has.
    #[serde(default)]
    pub lag_records: Option<u64>,
}

/// Which states a page is to have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PageOf {
    /// Only ids that begin so.
    pub prefix: String,
    /// The first id, in the order of the ids' bytes.
    pub from: Option<String>,
    /// Only ids before it.
    pub to: Option<String>,
    /// The most items; the server has a limit of its own.
    pub limit: Option<usize>,
    /// Where the page before has ended.
    pub cursor: Option<String>,
}

/// A page of states, partition by partition. It may be empty and still not be the last.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Page<A> {
    /// The states.
    pub items: Vec<State<A>>,
    /// For the next page; `None`: there is nothing more.
    pub cursor: Option<String>,
}

/// A question has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The state does not reflect yet what was asked for, and the time to wait is over: ask again.
    #[error("{message}")]
    NotCaughtUp {
        /// The next input that the state does not reflect.
        position: i64,
        /// What the owner says.
        message: String,
    },
    /// The owner has had no sign of its group for a while: ask again, or take what may be old.
    #[error("{0}")]
    Stale(String),
    /// Too much, at a time or at once: ask more slowly, or for less.
    #[error("{0}")]
    TooMuch(String),
    /// The question is refused.
    #[error("refused ({error}): {message}")]
    Refused {
        /// The code of the answer.
        error: String,
        /// What the server says.
        message: String,
    },
    /// Nobody has answered in time.
    #[error("nobody has answered in time; the last try: {0}")]
    Unreachable(String),
    /// An answer is not what it should be: the processes run another version, say.
    #[error("an answer cannot be read: {0}")]
    Unreadable(String),
    /// A setting is wrong.
    #[error("{0}")]
    Settings(String),
}

impl QueryClient {
    /// A client that asks these endpoints, `host:port`, for the way. Of the settings it takes `query.token` and `query.tls.…`; with `query.tls.ca` it speaks
    /// HTTPS.
    ///
    /// # Errors
    /// When there is no endpoint, or a file cannot be used.
    pub fn new(endpoints: &[String], settings: &Settings) -> Result<Self, QueryError> {
        if endpoints.is_empty() {
            return Err(QueryError::Settings("a client of queries must know at least one endpoint, host:port".to_owned()));
        }
        Ok(QueryClient {
            http: http::client(settings).map_err(QueryError::Settings)?,
            scheme: if settings.query_tls_ca.is_some() { "https" } else { "http" },
            authorization: http::authorization(settings),
            known: Mutex::new(Known { endpoints: endpoints.to_vec(), ..Known::default() }),
        })
    }

    /// The state of one aggregate; `None` where there is none.
    ///
    /// # Errors
    /// When there is no answer; each says what to do.
    pub async fn state<A: Aggregate>(&self, id: &str, reading: Reading) -> Result<Option<State<A>>, QueryError> {
        // Whoever is asked for what may be old finds a standby where the owner does not answer, as the client itself cannot.
        let redirect = !reading.stale;
        let mut target = format!("/v1/{}/state/{}?redirect={redirect}&wait={}", A::NAME, encoded(id), millis(reading.wait));
        if let Some(written) = reading.min_position {
            target.push_str(&format!("&min_position={written}"));
        }
        if reading.stale {
            target.push_str("&stale=true");
        }
        let partitions = self.partitions(A::NAME, reading.wait).await?;
        let partition = partition_of(id.as_bytes(), partitions) as usize;
        match self.ask(A::NAME, Some(partition), &target, reading.wait).await {
            Ok(body) => read(&body).map(Some),
            Err(QueryError::Refused { error, .. }) if error == "not_found" => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A page of states.
    ///
    /// # Errors
    /// When there is no answer; each says what to do.
    pub async fn states<A: Aggregate>(&self, page: &PageOf) -> Result<Page<A>, QueryError> {
        let mut target = format!("/v1/{}/states?prefix={}", A::NAME, encoded(&page.prefix));
        let limit = page.limit.map(|limit| limit.to_string());
        for (name, value) in [("from", &page.from), ("to", &page.to), ("limit", &limit), ("cursor", &page.cursor)] {
            if let Some(value) = value {
                target.push_str(&format!("&{name}={}", encoded(value)));
            }
        }
        read(&self.ask(A::NAME, None, &target, Duration::ZERO).await?)
    }

    /// The number of states whose ids begin so.
    ///
    /// # Errors
    /// When there is no answer; each says what to do.
    pub async fn count<A: Aggregate>(&self, prefix: &str) -> Result<u64, QueryError> {
        #[derive(Deserialize)]
        struct Counted {
            count: u64,
        }
        let target = format!("/v1/{}/count?prefix={}", A::NAME, encoded(prefix));
        read::<Counted>(&self.ask(A::NAME, None, &target, Duration::ZERO).await?).map(|counted| counted.count)
    }

    /// The number of partitions; learned once.
    async fn partitions(&self, component: &str, wait: Duration) -> Result<i32, QueryError> {
        let until = Instant::now() + wait + PATIENCE;
        let mut pause = PAUSE;
        loop {
            let known = self.known().components.get(component).map_or(0, Vec::len);
            if known > 0 {
                return Ok(i32::try_from(known).unwrap_or(i32::MAX));
            }
            let why = match self.learn().await {
                Ok(()) if self.known().components.contains_key(component) => continue,
                Ok(()) => format!("`{component}` is not known there, or not started yet"),
                Err(why) => why,
            };
            if Instant::now() >= until {
                return Err(QueryError::Unreachable(why));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST);
        }
    }

    /// Asks until there is an answer, or the time is over: the partition's owner first, and whoever answers.
    async fn ask(&self, component: &str, partition: Option<usize>, target: &str, wait: Duration) -> Result<Vec<u8>, QueryError> {
        let until = Instant::now() + wait + PATIENCE;
        let mut pause = PAUSE;
        // Whoever has not answered, where another one may answer in his place.
        let mut avoided: Option<String> = None;
        let in_place = target.contains("redirect=false");
        loop {
            let endpoint = self.endpoint(component, partition, avoided.as_deref());
            let left = until.saturating_duration_since(Instant::now());
            let why = match tokio::time::timeout(left, self.get(&endpoint, target)).await {
                Ok(Ok((StatusCode::OK, body))) => return Ok(body),
                Ok(Ok((status, body))) => {
                    let problem: Told = serde_json::from_slice(&body).map_err(|e| QueryError::Unreadable(format!("{status}: {e}")))?;
                    if let (Some(owner), Some(partition)) = (&problem.owner, partition)
                        && *owner != endpoint
                    {
                        self.moved(component, partition, Some(owner.clone()));
                        if status == StatusCode::TEMPORARY_REDIRECT && Instant::now() < until {
                            // No pause: the first step on a known way. A circle of owners is bounded by the time.
                            tokio::task::yield_now().await;
                            continue;
                        }
                    }
                    problem.into_error()?
                }
                Ok(Err(why)) => {
                    if let Some(partition) = partition {
                        self.moved(component, partition, None);
                    }
                    avoided = in_place.then_some(endpoint);
                    why
                }
                Err(_) => "it took too long".to_owned(),
            };
            if Instant::now() + pause >= until {
                return Err(QueryError::Unreachable(why));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST);
            // Whoever answers tells who has what; if nobody does, the next try shows it.
            let _ = self.learn().await;
        }
    }

    /// Whom to ask: the owner where it is known, else one after the other; another one than `avoided`, where there is one.
    fn endpoint(&self, component: &str, partition: Option<usize>, avoided: Option<&str>) -> String {
        let mut known = self.known();
        let owner = partition.and_then(|partition| known.components.get(component)?.get(partition)?.clone());
        owner.filter(|owner| Some(owner.as_str()) != avoided).unwrap_or_else(|| {
            known.turn += 1;
            let next = known.turn % known.endpoints.len();
            let in_turn = known.endpoints[next..].iter().chain(&known.endpoints[..next]);
            in_turn.clone().find(|endpoint| Some(endpoint.as_str()) != avoided).unwrap_or(&known.endpoints[next]).clone()
        })
    }

    fn moved(&self, component: &str, partition: usize, owner: Option<String>) {
        if let Some(known) = self.known().components.get_mut(component).and_then(|owners| owners.get_mut(partition)) {
            *known = owner;
        }
    }

    /// Asks one of the endpoints who has what.
    async fn learn(&self) -> Result<(), String> {
        #[derive(Deserialize)]
        struct Components {
            components: Vec<Component>,
        }
        #[derive(Deserialize)]
        struct Component {
            component: String,
            owners: Vec<Option<String>>,
        }
        let endpoint = self.endpoint("", None, None);
        let (status, body) = tokio::time::timeout(Duration::from_secs(2), self.get(&endpoint, "/v1/components"))
            .await
            .unwrap_or_else(|_| Err(format!("{endpoint} took too long")))?;
        let told: Components = match status {
            StatusCode::OK => serde_json::from_slice(&body).map_err(|e| e.to_string())?,
            status => return Err(format!("{endpoint} answers {status}")),
        };
        let mut known = self.known();
        for Component { component, owners } in told.components {
            for owner in owners.iter().flatten() {
                if !known.endpoints.contains(owner) {
                    known.endpoints.push(owner.clone());
                }
            }
            let before = known.components.entry(component).or_default();
            before.resize(owners.len(), None);
            for (before, now) in before.iter_mut().zip(owners) {
                *before = now.or(before.take());
            }
        }
        known.components.retain(|_, owners| !owners.is_empty());
        Ok(())
    }

    async fn get(&self, endpoint: &str, target: &str) -> Result<(StatusCode, Vec<u8>), String> {
        let mut request = Request::get(format!("{}://{endpoint}{target}", self.scheme));
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request.body(Empty::new()).map_err(|e| e.to_string())?;
        let response = self.http.request(request).await.map_err(|e| format!("{endpoint}: {}", http::reasons(&e)))?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|e| format!("{endpoint}: {}", http::reasons(&e)))?;
        Ok((status, body.to_bytes().to_vec()))
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a server says where it has no answer.
#[derive(Deserialize)]
struct Told {
    error: String,
    message: String,
    position: Option<i64>,
    owner: Option<String>,
}

impl Told {
    /// An error for the caller; or, where another try may help, what happened.
    fn into_error(self) -> Result<String, QueryError> {
        Err(match self.error.as_str() {
            "moved" | "starting" | "unreachable" | "restoring" => return Ok(self.message),
            "not_caught_up" => QueryError::NotCaughtUp { position: self.position.unwrap_or(0), message: self.message },
            "stale" => QueryError::Stale(self.message),
            "too_many_requests" | "too_large" => QueryError::TooMuch(self.message),
            _ => QueryError::Refused { error: self.error, message: self.message },
        })
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, QueryError> {
    serde_json::from_slice(body).map_err(|e| QueryError::Unreadable(e.to_string()))
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

fn millis(wait: Duration) -> String {
    if wait.is_zero() { "0".to_owned() } else { wait.show().replace(' ', "%20") }
}
