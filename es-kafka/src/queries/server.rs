//! The server: it listens, takes connections in, and ends with the application.

use super::evictor;
use super::finder::Finder;
use super::gate::Limits;
use super::node::{Node, Served};
use super::peers::Peers;
use super::routes;
use crate::app::AppError;
use crate::connection::Connection;
use crate::directory::Directory;
use crate::http::tls;
use crate::metrics::Metrics;
use crate::settings::{Settings, Value};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

/// Threads that serve connections; the work itself is the lanes'.
const THREADS: usize = 2;
/// How long a client may take to send the head of a request, and to agree on TLS.
const HEAD: Duration = Duration::from_secs(10);
/// What a connection keeps of a request's head, at least.
const LEAST_BUFFER: usize = 8 << 10;
/// How long the runtime may take to end.
const END: Duration = Duration::from_millis(500);

/// A server that listens and does not answer yet.
pub(crate) struct Bound {
    runtime: Runtime,
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Where others find it.
    pub(crate) endpoint: String,
}

/// A server that answers until it is dropped.
pub(crate) struct Server {
    runtime: Option<Runtime>,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

/// What the server tells of its process, and what it looks at.
pub(crate) struct OfProcess {
    pub(crate) instance: String,
    pub(crate) directory: Directory,
    pub(crate) metrics: Metrics,
    /// Whether the process is to stop.
    pub(crate) stop: Arc<AtomicBool>,
}

impl Bound {
    /// Listens, where the settings say so.
    ///
    /// # Errors
    /// When the address cannot be used, or a file for TLS.
    pub(crate) fn new(settings: &Settings) -> Result<Option<Self>, AppError> {
        let Some(listen) = &settings.listen else { return Ok(None) };
        let tls = tls::server(settings).map_err(AppError::Setup)?.map(TlsAcceptor::from);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).thread_name("http").enable_all().build()?;
        let at = listen.show();
        let listener = runtime.block_on(TcpListener::bind(at.as_str()));
        let listener = listener.map_err(|e| AppError::Setup(format!("`listen`: cannot listen on {at}: {e}")))?;
        let address = listener.local_addr()?;
        let endpoint = match &settings.advertised_listen {
            Some(advertised) => advertised.show(),
            // A port that the system has chosen.
            None => format!("{}:{}", listen.host, address.port()),
        };
        Ok(Some(Bound { runtime, listener, tls, address, endpoint }))
    }

    /// Begins to answer.
    ///
    /// # Errors
    /// When a setting is wrong.
    #[allow(clippy::too_many_arguments, reason = "it is called once")]
    pub(crate) fn serve(
        self,
        settings: &Settings,
        connection: &Connection,
        components: BTreeMap<String, Served>,
        process: OfProcess,
    ) -> Result<Server, AppError> {
        let Bound { runtime, listener, tls, address, endpoint } = self;
        let OfProcess { instance, directory, metrics, stop } = process;
        let node = Arc::new(Node {
            instance,
            endpoint: endpoint.clone(),
            limits: Limits::new(settings),
            finder: Finder::new(settings, connection, components.keys(), directory)?,
            peers: Peers::new(settings).map_err(AppError::Setup)?,
            components,
            metrics,
            stop,
            settings: settings.clone(),
        });
        let buffer = usize::try_from(settings.query_max_request_bytes).unwrap_or(usize::MAX).saturating_add(LEAST_BUFFER);
        let places = Arc::new(Semaphore::new(settings.query_max_connections.min(Semaphore::MAX_PERMITS)));
        if evictor::watches(&node, connection) {
            runtime.spawn(evictor::watch(node.clone()));
        }
        runtime.spawn(accept(listener, tls, routes::router(node), places, buffer));
        let scheme = if settings.query_tls_certificate.is_some() { "https" } else { "http" };
        tracing::info!(%address, endpoint, "queries are answered at {scheme}://{endpoint}");
        Ok(Server { runtime: Some(runtime), address })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(END);
        }
    }
}

/// Takes connections in, as many as there are places; others wait in the system's queue.
async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, router: axum::Router, places: Arc<Semaphore>, buffer: usize) {
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of files, say: the next try may do better.
                tracing::warn!(%error, "a connection could not be taken in");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (tls, router) = (tls.clone(), router.clone());
        tokio::spawn(async move {
            connection(stream, tls, router, buffer).await;
            drop(place);
        });
    }
}

async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, router: axum::Router, buffer: usize) {
    // It only costs time where it cannot be set.
    let _ = stream.set_nodelay(true);
    match tls {
        None => talk(stream, router, buffer).await,
        Some(tls) => match tokio::time::timeout(HEAD, tls.accept(stream)).await {
            Ok(Ok(stream)) => talk(stream, router, buffer).await,
            Ok(Err(error)) => tracing::debug!(%error, "a client could not agree on TLS"),
            Err(_) => tracing::debug!("a client took too long to agree on TLS"),
        },
    }
}

async fn talk(stream: impl AsyncRead + AsyncWrite + Unpin + 'static, router: axum::Router, buffer: usize) {
    let service = TowerToHyperService::new(router);
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(buffer).half_close(false);
    if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection of a client has ended");
    }
}
