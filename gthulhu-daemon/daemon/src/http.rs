//! Metrics and control over HTTP, in a thread of their own.
//!
//! hyper alone on a tokio runtime of one thread: it is in the lock file already (under kube), is kept by many, and its
//! limits on time and size can be set, which those of tiny_http cannot. Five paths need no router (axum).
//!
//! Nobody out there can hold anything up: a connection is one request, has a few seconds for all of it, and a bound
//! number of others beside it. What asks the supervisor waits for its answer for a moment only.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gthulhu_config::Config;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use gthulhu_monitor::metrics::{Format, negotiate};

use crate::desk::Ask;
use crate::events::{self, Body, Form};
use crate::log::Log;
use crate::observe::Node;
use crate::runtime::{Shared, failed};
use crate::{Error, Result, metrics};

/// Connections at the same time, of each address.
const CONNECTIONS: usize = 32;
/// Bytes of a request's head, the least that hyper takes, and of its body, the most that a patch may have.
const HEAD_MAX: usize = 8192;
const BODY_MAX: usize = crate::clerk::BODY_MAX;
/// For the head of a request, for its body, and for all of it with the answer: a change that re-attaches takes a second or
/// two, and many more where CPUs are emulated and busy.
const HEAD_TIME: Duration = Duration::from_secs(5);
const BODY_TIME: Duration = Duration::from_secs(10);
const ALL_TIME: Duration = Duration::from_secs(60);
/// For the supervisor, and for the monitor.
const SUPERVISOR_TIME: Duration = Duration::from_secs(2);
const MONITOR_TIME: Duration = Duration::from_secs(8);
/// An address that cannot be had is tried again after this.
const AGAIN: Duration = Duration::from_secs(5);

/// What is served at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Metrics,
    Control,
}

type Reply = Response<Body>;

/// Why addresses cannot be served, by role.
#[derive(Debug, Default)]
struct Trouble(Mutex<Vec<(Role, String)>>);

/// Starts the thread.
pub(crate) fn start(shared: Arc<Shared>, config: &Config, sockets: events::Sockets, log: Log) -> Result<()> {
    let metrics = SocketAddr::new(config.monitor.prometheus_address, config.monitor.prometheus_port);
    let control = config.daemon.control_addr;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // A change waits for the disk and the supervisor.
        .max_blocking_threads(4)
        .build()
        .map_err(|e| Error::system("cannot start the runtime of HTTP", &e))?;
    std::thread::Builder::new()
        .name("http".into())
        .spawn(move || {
            runtime.block_on(async {
                let trouble = Arc::new(Trouble::default());
                tokio::spawn(events::serve(shared.events.clone(), sockets));
                let metrics = serve(Role::Metrics, metrics, &shared, &trouble, &log);
                match control {
                    Some(control) => {
                        let control = serve(Role::Control, control, &shared, &trouble, &log);
                        tokio::join!(metrics, control);
                    }
                    None => metrics.await,
                }
            });
        })
        .map_err(|e| Error::system("cannot start the thread of HTTP", &e))?;
    Ok(())
}

/// Serves an address for ever. That it cannot be had is said, and no reason to end.
async fn serve(role: Role, address: SocketAddr, shared: &Arc<Shared>, trouble: &Arc<Trouble>, log: &Log) {
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(error) => {
                let key = match role {
                    Role::Metrics => "monitor.prometheus_port",
                    Role::Control => "daemon.control_addr",
                };
                if trouble.set(role, Some(format!("cannot listen on {address}: {error}"))) {
                    log.warn(format_args!("{key}: cannot listen on {address}: {error}; it is tried again"));
                }
            }
        }
        tokio::time::sleep(AGAIN).await;
    };
    trouble.set(role, None);
    log.info(match role {
        Role::Metrics => format!("metrics at http://{address}/metrics"),
        Role::Control if shared.access.tls().is_some() => {
            format!("control at https://{address}/api/v1/status")
        }
        Role::Control => format!("control at http://{address}/api/v1/status"),
    });
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // Whoever comes when all places are taken waits in the kernel's queue.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (shared, trouble) = (Arc::clone(shared), Arc::clone(trouble));
                tokio::spawn(async move {
                    connection(stream, role, shared, trouble).await;
                    drop(place);
                });
            }
            // There may be no descriptors left: not again at once.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn connection(stream: TcpStream, role: Role, shared: Arc<Shared>, trouble: Arc<Trouble>) {
    let reads = Arc::new(AtomicBool::new(false));
    let noted = Arc::clone(&reads);
    let tls = if role == Role::Control { shared.access.tls() } else { None };
    let service = service_fn(move |request| {
        let (shared, trouble, noted) = (Arc::clone(&shared), Arc::clone(&trouble), Arc::clone(&noted));
        async move {
            let answer = answer(request, role, &shared, &trouble).await;
            noted.store(matches!(answer.body(), Body::Events(_)), Ordering::Relaxed);
            Ok::<_, Infallible>(answer)
        }
    });
    // Garbage, a client that went away, one that is too slow: its own affair.
    let mut all = std::pin::pin!(async {
        let Some(tls) = tls else { return converse(stream, service).await };
        // The first byte of a handshake (RFC 8446, 5.1). Who speaks plainly is told so, plainly.
        let mut first = [0];
        match tokio::time::timeout(HEAD_TIME, stream.peek(&mut first)).await {
            Ok(Ok(1)) if first == [22] => {}
            Ok(Ok(1)) => return converse(stream, service_fn(only_tls)).await,
            _ => return,
        }
        if let Ok(Ok(stream)) = tokio::time::timeout(HEAD_TIME, TlsAcceptor::from(tls).accept(stream)).await {
            converse(stream, service).await;
        }
    });
    let in_time = tokio::time::timeout(ALL_TIME, all.as_mut()).await;
    // Whoever reads events does so for as long as it likes; there are a few such at most.
    if in_time.is_err() && reads.load(Ordering::Relaxed) {
        all.await;
    }
}

/// One request, and its answer.
async fn converse<I, S>(stream: I, service: S)
where
    I: AsyncRead + AsyncWrite + Unpin,
    S: Service<Request<Incoming>, Response = Reply, Error = Infallible>,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    let _ = connection.await;
}

async fn only_tls(_: Request<Incoming>) -> std::result::Result<Reply, Infallible> {
    Ok(reply(400, &failed("this address speaks TLS only (daemon.tls_cert_file): ask https://")))
}

async fn answer(request: Request<Incoming>, role: Role, shared: &Arc<Shared>, trouble: &Trouble) -> Reply {
    let path = request.uri().path().to_owned();
    let allowed: &[Method] = match (role, path.as_str()) {
        (_, "/health" | "/healthz") => &[Method::GET, Method::HEAD],
        (Role::Metrics, "/metrics") => &[Method::GET, Method::HEAD],
        (Role::Control, "/api/v1/status") => &[Method::GET, Method::HEAD],
        (Role::Control, "/api/v1/events") => &[Method::GET],
        (Role::Control, "/api/v1/runtime-config") => &[Method::GET, Method::HEAD, Method::POST],
        _ => return reply(404, &failed(&format!("there is nothing at {path}"))),
    };
    if !allowed.contains(request.method()) {
        let list: Vec<&str> = allowed.iter().map(Method::as_str).collect();
        let mut refused = reply(405, &failed(&format!("{path} takes {}", list.join(", "))));
        if let Ok(list) = HeaderValue::from_str(&list.join(", ")) {
            refused.headers_mut().insert(header::ALLOW, list);
        }
        return refused;
    }
    if role == Role::Control && path.starts_with("/api/") {
        let header = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let change = !matches!(*request.method(), Method::GET | Method::HEAD);
        if let Err((code, why)) = shared.access.may(header, change) {
            let mut refused = reply(code, &failed(&why));
            refused.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return refused;
        }
    }
    match path.as_str() {
        "/metrics" => scrape(&request, shared).await,
        "/api/v1/events" => stream(&request, shared),
        "/api/v1/status" => reply(200, &status(shared, trouble).await),
        "/api/v1/runtime-config" if request.method() == Method::POST => change(request, shared).await,
        "/api/v1/runtime-config" => reply(200, &shared.told().values),
        _ => plain(200, "text/plain; charset=utf-8", "ok".into()),
    }
}

async fn scrape(request: &Request<Incoming>, shared: &Shared) -> Reply {
    // Several headers of a name are one list.
    let accept: Vec<&str> =
        request.headers().get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let format = negotiate(&accept.join(","));
    let monitor = tokio::time::timeout(MONITOR_TIME, shared.watcher.ask(Some(format)));
    let (status, monitor) = tokio::join!(supervisor(shared), monitor);
    let monitor = monitor.ok().flatten().unwrap_or_default();
    let mut text = metrics::render(status.ok().as_ref(), monitor.running, format);
    text.push_str(&Node { told: &shared.told(), events: shared.events.counts() }.render(format));
    text.push_str(&monitor.text);
    if format == Format::OpenMetrics && monitor.text.is_empty() {
        text.push_str("# EOF\n");
    }
    plain(200, format.content_type(), text)
}

/// Events for as long as the client reads.
fn stream(request: &Request<Incoming>, shared: &Shared) -> Reply {
    let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let form = Form::negotiate(accept.unwrap_or(""));
    match shared.events.read(form) {
        Ok(reader) => {
            let mut response = plain(200, form.content_type(), String::new());
            *response.body_mut() = reader.body();
            response
        }
        Err(why) => reply(503, &failed(why)),
    }
}

/// What the supervisor says, if it does so in time.
async fn supervisor(shared: &Shared) -> std::result::Result<Value, String> {
    let answer = shared.caller.ask(Ask::Status)?;
    match tokio::time::timeout(SUPERVISOR_TIME, answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err("the daemon ends".into()),
        Err(_) => Err("the supervisor does not answer; it may be attaching the scheduler".into()),
    }
}

/// The original's fields, and behind `scheduler` all that the control socket tells.
async fn status(shared: &Shared, trouble: &Trouble) -> Value {
    let told = shared.told();
    let monitor = tokio::time::timeout(SUPERVISOR_TIME, shared.watcher.ask(None));
    let (scheduler, monitor) = tokio::join!(supervisor(shared), monitor);
    let monitor = monitor.ok().flatten().unwrap_or_default();
    let (scheduler, silent) = match scheduler {
        Ok(object) => (object, None),
        Err(why) => (Value::Null, Some(why)),
    };
    let mut object = match told.values {
        Value::Object(fields) => Value::Object(fields),
        _ => json!({}),
    };
    object["configVersion"] = told.version.into();
    object["applied"] = told.applied_at.is_some().into();
    object["appliedAt"] = told.applied_at.into();
    object["configAvailable"] = true.into();
    object["restartCount"] = scheduler["agent"]["restarts"].clone();
    object["lastError"] = told.last_error.or(silent).into();
    object["scheduler"] = scheduler;
    object["monitor"] = json!({ "enabled": told.monitoring, "running": monitor.running, "error": monitor.error, "names": monitor.names });
    object["http"] = trouble.json();
    object["http"]["accessError"] = shared.access.trouble().into();
    object
}

async fn change(request: Request<Incoming>, shared: &Arc<Shared>) -> Reply {
    let reattach = match flag(request.uri().query().unwrap_or("")) {
        Ok(reattach) => reattach,
        Err(why) => return reply(400, &failed(&why)),
    };
    // A page in a browser on this machine can send other types to any address, without asking.
    let kind =
        request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let kind = kind.split(';').next().unwrap_or("").trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        return reply(
            415,
            &failed("the body has to be JSON, and Content-Type: application/json has to say so"),
        );
    }
    let body = Limited::new(request.into_body(), BODY_MAX).collect();
    let Ok(body) = tokio::time::timeout(BODY_TIME, body).await else {
        return reply(408, &failed(&format!("the body did not come within {} s", BODY_TIME.as_secs())));
    };
    let body = match body {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            return reply(413, &failed(&format!("the body is longer than {BODY_MAX} bytes")));
        }
        Err(error) => return reply(400, &failed(&format!("the body cannot be read: {error}"))),
    };
    let shared = Arc::clone(shared);
    match tokio::task::spawn_blocking(move || shared.apply(&body, reattach)).await {
        Ok((code, object)) => reply(code, &object),
        Err(_) => reply(500, &failed("the change was not finished")),
    }
}

/// `reattach=true`, the one thing that may stand behind the `?`.
fn flag(query: &str) -> std::result::Result<bool, String> {
    match query {
        "" | "reattach=false" => Ok(false),
        "reattach=true" => Ok(true),
        other => Err(format!("'{}' is no parameter; there is reattach=true", other.escape_default())),
    }
}

fn reply(code: u16, object: &Value) -> Reply {
    plain(code, "application/json", format!("{object}\n"))
}

fn plain(code: u16, kind: &'static str, body: String) -> Reply {
    let mut response = Response::new(Body::Whole(Full::new(Bytes::from(body))));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

impl Trouble {
    /// Whether that is news.
    fn set(&self, role: Role, trouble: Option<String>) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = all.iter().position(|(r, _)| *r == role).map(|at| all.swap_remove(at).1);
        let news = before != trouble;
        all.extend(trouble.map(|trouble| (role, trouble)));
        news
    }

    fn json(&self) -> Value {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |role| all.iter().find(|(r, _)| *r == role).map(|(_, trouble)| trouble.as_str());
        json!({ "metricsError": of(Role::Metrics), "controlError": of(Role::Control) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_reattach_is_a_parameter() {
        assert_eq!(
            (flag(""), flag("reattach=true"), flag("reattach=false")),
            (Ok(false), Ok(true), Ok(false))
        );
        assert!(flag("reattach=yes").is_err() && flag("x").is_err());
    }

    #[test]
    fn trouble_is_news_once() {
        let trouble = Trouble::default();
        assert!(trouble.set(Role::Metrics, Some("taken".into())));
        assert!(!trouble.set(Role::Metrics, Some("taken".into())));
        assert_eq!(trouble.json()["metricsError"], "taken");
        assert!(trouble.set(Role::Metrics, None) && trouble.json()["metricsError"].is_null());
    }
}
