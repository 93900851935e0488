//! Asks a decision maker. It may be slow, lie, be silent or gone: every answer has a time and a length that it must
//! not exceed, and what is wrong with it is an [`Error`] that says what to do about it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Certificate, Identity, Method, Request, Response, Url};
use tokio::sync::Mutex;

use crate::envelope::one_line;
use crate::events::{Event, Parser};
use crate::{Counters, Envelope, Failure, StrategyList, Token, TokenRequest, paths};

/// The longest body of an answer, and the longest event of a stream, in bytes: ten times what a node full of strategies
/// needs.
pub const LONGEST: usize = 4 << 20;
/// A token is asked for anew when this part of its life is left...
const REST: u32 = 5;
/// ... and a decision maker whose clock is wrong, so that its tokens are no good from the first moment, is not asked for
/// another one with each request.
const SHORTEST_LIFE: Duration = Duration::from_secs(10);

/// Where a decision maker is, and how it is spoken to.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `http://HOST[:PORT][/PATH]`, or `https://`.
    pub url: String,
    /// How a token is had.
    pub auth: Auth,
    /// For `https://`: whom to believe, and who we are.
    pub tls: Tls,
    /// For a request with its whole answer; for the head of a stream; zero for 10 s.
    pub time: Duration,
    /// A stream that is silent for longer is given up; zero for 30 s.
    pub silence: Duration,
}

/// How a token is had.
#[derive(Clone, Default)]
pub enum Auth {
    /// None is shown.
    #[default]
    None,
    /// This one.
    Token(String),
    /// This public key, as PEM, is exchanged for one, and for another before that expires.
    Key(String),
}

/// Certificates as PEM.
#[derive(Clone, Default)]
pub struct Tls {
    /// Who signs the decision maker's. Without it those whom the system believes.
    pub ca_pem: Option<String>,
    /// Our certificate.
    pub cert_pem: Option<String>,
    /// Its key.
    pub key_pem: Option<String>,
}

/// What went wrong.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

/// What went wrong, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The address or a certificate makes no sense. Trying again does not help.
    Invalid,
    /// It cannot be reached, TLS included, or it hung up.
    Unreachable,
    /// It took too long, or was silent for too long.
    Timeout,
    /// It does not know us: 401 or 403.
    Denied,
    /// It has no such endpoint: 404, 405, 406, 410 or 501, or no stream where one was asked for.
    NotOffered,
    /// Any other code than 200.
    Status,
    /// The answer is too long, or no sense can be made of it.
    Garbage,
}

/// The client. Clones share connections and token.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Ends with a slash.
    base: Url,
    auth: Auth,
    time: Duration,
    silence: Duration,
    /// Locked while one is asked for: it is asked for once, whoever needs it.
    token: Mutex<Option<Held>>,
}

#[derive(Debug)]
struct Held {
    token: Token,
    /// Another one is wanted from then on.
    until: Instant,
}

/// A stream of strategies.
#[derive(Debug)]
pub struct Stream {
    response: Response,
    parser: Parser,
    silence: Duration,
    /// Until the first message: it says what holds now, so it comes at once.
    first: Option<tokio::time::Instant>,
    waiting: std::collections::VecDeque<Event>,
}

/// What a stream says.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// These hold from now on.
    Strategies(StrategyList),
    /// What was told last still holds.
    Alive,
}

impl Client {
    /// Gets ready; nothing is asked yet.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`]: the address or a certificate makes no sense.
    pub fn new(options: Options) -> Result<Self, Error> {
        let invalid = |what: String| Error { kind: ErrorKind::Invalid, message: what };
        let mut base = Url::parse(&options.url).map_err(|e| invalid(format!("{}: {e}", options.url)))?;
        if !matches!(base.scheme(), "http" | "https") || base.cannot_be_a_base() {
            return Err(invalid(format!("{base} is neither http:// nor https://")));
        }
        let path = format!("{}/", base.path().trim_end_matches('/'));
        base.set_path(&path);
        let or = |given: Duration, usual| if given.is_zero() { Duration::from_secs(usual) } else { given };
        let (time, silence) = (or(options.time, 10), or(options.silence, 30));
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("gthulhu/", env!("CARGO_PKG_VERSION")))
            // A proxy of the environment, or a redirect, would get our token.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .connect_timeout(time)
            .pool_max_idle_per_host(2);
        let Tls { ca_pem, cert_pem, key_pem } = &options.tls;
        if let Some(ca) = ca_pem {
            let certificates = Certificate::from_pem_bundle(ca.as_bytes())
                .map_err(|e| invalid(format!("the authority's certificate: {}", causes(&e))))?;
            if certificates.is_empty() {
                return Err(invalid("the authority's certificate: there is none in it".into()));
            }
            builder = builder.tls_certs_only(certificates);
        } else if base.scheme() == "http" {
            // A machine that has no certificates at all can speak http:// all the same.
            builder = builder.tls_certs_only([]);
        }
        if let (Some(cert), Some(key)) = (cert_pem, key_pem) {
            let identity = Identity::from_pem(format!("{cert}\n{key}").as_bytes())
                .map_err(|e| invalid(format!("our certificate and its key: {}", causes(&e))))?;
            builder = builder.identity(identity);
        }
        let http = builder.build().map_err(|e| invalid(causes(&e)))?;
        let shared = Shared { base, auth: options.auth, time, silence, token: Mutex::new(None) };
        Ok(Self { http, shared: Arc::new(shared) })
    }

    /// All strategies of the node, now.
    ///
    /// # Errors
    /// Whatever is wrong with the answer, or that there is none.
    pub async fn strategies(&self) -> Result<StrategyList, Error> {
        let body = self.ask(Method::GET, paths::STRATEGIES, None).await?;
        parse(&body, paths::STRATEGIES)
    }

    /// Tells the counters of this node.
    ///
    /// # Errors
    /// Any answer but 200, or none.
    pub async fn tell(&self, counters: &Counters) -> Result<(), Error> {
        let body = serde_json::to_vec(counters).map_err(|e| garbage(paths::METRICS, &e))?;
        self.ask(Method::POST, paths::METRICS, Some(body)).await.map(drop)
    }

    /// Begins to listen. What holds now is the first message.
    ///
    /// # Errors
    /// [`ErrorKind::NotOffered`] where there is no stream, and all that can go wrong with a request.
    pub async fn stream(&self) -> Result<Stream, Error> {
        let response =
            within(self.shared.time, paths::STREAM, self.answer(Method::GET, paths::STREAM, None)).await?;
        let kind =
            response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("nothing");
        if !kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/event-stream")) {
            let message =
                format!("{}: no event stream: it answers with {}", paths::STREAM, one_line(kind, 60));
            return Err(Error { kind: ErrorKind::NotOffered, message });
        }
        let silence = self.shared.silence;
        let first = Some(tokio::time::Instant::now() + self.shared.time);
        Ok(Stream { response, parser: Parser::new(LONGEST), silence, first, waiting: Default::default() })
    }

    /// A request with its whole answer.
    async fn ask(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<Vec<u8>, Error> {
        within(self.shared.time, path, async {
            let response = self.answer(method, path, body).await?;
            read(response, path).await
        })
        .await
    }

    /// The head of an answer with a good code. A token that is refused is thrown away, and another one tried.
    async fn answer(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<Response, Error> {
        let token = self.token(None).await?;
        let first = self.send(method.clone(), path, body.clone(), token.as_deref()).await;
        match (first, token) {
            (Err(e), Some(refused))
                if e.kind == ErrorKind::Denied && matches!(self.shared.auth, Auth::Key(_)) =>
            {
                let another = self.token(Some(&refused)).await?;
                self.send(method, path, body, another.as_deref()).await
            }
            (answer, _) => answer,
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        token: Option<&str>,
    ) -> Result<Response, Error> {
        let mut request = Request::new(method, self.at(path)?);
        let accept = if path == paths::STREAM { "text/event-stream" } else { "application/json" };
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static(accept));
        if let Some(token) = token {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| Error {
                kind: ErrorKind::Invalid,
                message: "the token has characters that no token has".into(),
            })?;
            value.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        if let Some(body) = body {
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            *request.body_mut() = Some(body.into());
        }
        let response = self.http.execute(request).await.map_err(|e| unreachable_by(path, &e))?;
        match response.status().as_u16() {
            200 => Ok(response),
            code => Err(refusal(response, path, code).await),
        }
    }

    fn at(&self, path: &str) -> Result<Url, Error> {
        self.shared
            .base
            .join(path.trim_start_matches('/'))
            .map_err(|e| Error { kind: ErrorKind::Invalid, message: format!("{path}: {e}") })
    }

    /// The token to show, if one is to be shown; another than the one that was refused.
    async fn token(&self, refused: Option<&str>) -> Result<Option<String>, Error> {
        let key = match &self.shared.auth {
            Auth::None => return Ok(None),
            Auth::Token(token) => return Ok(Some(token.clone())),
            Auth::Key(key) => key,
        };
        let mut held = self.shared.token.lock().await;
        if let Some(held) = &*held
            && Instant::now() < held.until
            && refused != Some(held.token.token.as_str())
        {
            return Ok(Some(held.token.token.clone()));
        }
        let request = TokenRequest { public_key: key.clone(), ..TokenRequest::default() };
        let body = serde_json::to_vec(&request).map_err(|e| garbage(paths::TOKEN, &e))?;
        let response = self.send(Method::POST, paths::TOKEN, Some(body), None).await?;
        let answer: Envelope<Token> = parse(&read(response, paths::TOKEN).await?, paths::TOKEN)?;
        if !answer.success || answer.data.token.is_empty() {
            let message = format!("{}: the answer has no token", paths::TOKEN);
            return Err(Error { kind: ErrorKind::Garbage, message });
        }
        let token = answer.data.token.clone();
        *held = Some(Held {
            until: Instant::now() + life(answer.data.expired_at, SystemTime::now()),
            token: answer.data,
        });
        Ok(Some(token))
    }
}

/// For how long a token is used that expires then: a fifth of its life before, and never to the last moment.
fn life(expired_at: i64, now: SystemTime) -> Duration {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let left = match u64::try_from(expired_at) {
        // Not said. The original's live for a day.
        Ok(0) => Duration::from_secs(3600),
        Ok(at) => Duration::from_secs(at).saturating_sub(now).min(Duration::from_secs(30 * 86_400)),
        Err(_) => Duration::ZERO,
    };
    (left - left / REST).max(SHORTEST_LIFE.min(left.max(Duration::from_secs(1))))
}

impl Stream {
    /// What it says next.
    ///
    /// # Errors
    /// When it ends, is silent for too long, or says what makes no sense. It is of no use then.
    pub async fn next(&mut self) -> Result<Message, Error> {
        loop {
            while let Some(event) = self.waiting.pop_front() {
                self.first = None;
                match event.name.as_str() {
                    "strategies" => {
                        return parse(event.data.as_bytes(), paths::STREAM).map(Message::Strategies);
                    }
                    "alive" => return Ok(Message::Alive),
                    _ => {}
                }
            }
            let silent = tokio::time::Instant::now() + self.silence;
            let until = self.first.map_or(silent, |first| first.min(silent));
            let Ok(chunk) = tokio::time::timeout_at(until, self.response.chunk()).await else {
                let message = format!("{}: nothing was heard for too long", paths::STREAM);
                return Err(Error { kind: ErrorKind::Timeout, message });
            };
            let Some(chunk) = chunk.map_err(|e| unreachable_by(paths::STREAM, &e))? else {
                let message = format!("{}: it ended", paths::STREAM);
                return Err(Error { kind: ErrorKind::Unreachable, message });
            };
            let waiting = &mut self.waiting;
            self.parser
                .take(&chunk, |event| waiting.push_back(event))
                .map_err(|e| garbage(paths::STREAM, &e))?;
        }
    }
}

/// The whole body, unless it is too long.
async fn read(mut response: Response, path: &str) -> Result<Vec<u8>, Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| unreachable_by(path, &e))? {
        if body.len() + chunk.len() > LONGEST {
            let message = format!("{path}: the answer is longer than {LONGEST} bytes");
            return Err(Error { kind: ErrorKind::Garbage, message });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

async fn refusal(mut response: Response, path: &str, code: u16) -> Error {
    let kind = match code {
        401 | 403 => ErrorKind::Denied,
        404 | 405 | 406 | 410 | 501 => ErrorKind::NotOffered,
        _ => ErrorKind::Status,
    };
    // What it says about it fits into the first piece, or is not said.
    let body = tokio::time::timeout(Duration::from_secs(1), response.chunk()).await;
    let said = body.ok().and_then(Result::ok).flatten().and_then(|body| Failure::of(&body));
    let said = said.map(|said| format!(" ({said})")).unwrap_or_default();
    Error { kind, message: format!("{path}: it answers {code}{said}") }
}

async fn within<T>(
    time: Duration,
    path: &str,
    what: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::time::timeout(time, what).await.unwrap_or_else(|_| {
        let message = format!("{path}: no whole answer within {} s", time.as_secs_f32());
        Err(Error { kind: ErrorKind::Timeout, message })
    })
}

fn parse<T: serde::de::DeserializeOwned>(body: &[u8], path: &str) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(|e| garbage(path, &e))
}

fn garbage(path: &str, why: &dyn fmt::Display) -> Error {
    let message = format!("{path}: no sense can be made of the answer: {}", one_line(&why.to_string(), 200));
    Error { kind: ErrorKind::Garbage, message }
}

fn unreachable_by(path: &str, error: &reqwest::Error) -> Error {
    let kind = if error.is_timeout() { ErrorKind::Timeout } else { ErrorKind::Unreachable };
    Error { kind, message: format!("{path}: {}", causes(error)) }
}

/// reqwest says what it was about; why is in the causes.
fn causes(error: &dyn std::error::Error) -> String {
    let last = std::iter::successors(Some(error), |e| e.source()).last().map(ToString::to_string);
    let (first, last) = (error.to_string(), last.unwrap_or_default());
    if first.contains(&last) { one_line(&first, 300) } else { one_line(&format!("{first}: {last}"), 300) }
}

impl Error {
    /// What went wrong, for programs.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Token(_) => "Token",
            Self::Key(_) => "Key",
        })
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let given = |pem: &Option<String>| if pem.is_some() { "given" } else { "none" };
        let Self { ca_pem, cert_pem, key_pem } = self;
        f.debug_struct("Tls")
            .field("ca_pem", &given(ca_pem))
            .field("cert_pem", &given(cert_pem))
            .field("key_pem", &given(key_pem))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_before_it_expires_whatever_its_clock_says() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let of = |expired_at| life(expired_at, now).as_secs();
        assert_eq!(of(1_000_000 + 86_400), 69_120);
        assert_eq!((of(1_000_100), of(1_000_002)), (80, 2));
        assert_eq!(of(0), 2_880);
        assert_eq!((of(5), of(-1), of(i64::MIN)), (1, 1, 1));
        assert!(of(i64::MAX) < 30 * 86_400);
    }

    #[test]
    fn an_address_that_makes_no_sense_is_said() {
        for url in ["", "localhost:8080", "ftp://host", "http://", "mailto:x"] {
            let options = Options { url: url.into(), ..Options::default() };
            assert_eq!(Client::new(options).expect_err(url).kind(), ErrorKind::Invalid, "{url}");
        }
        let wrong = Tls { ca_pem: Some("-----BEGIN nonsense".into()), ..Tls::default() };
        let options = Options { url: "https://localhost".into(), tls: wrong, ..Options::default() };
        assert!(Client::new(options).expect_err("no certificate").to_string().contains("authority"));
    }

    #[test]
    fn paths_are_below_the_address() {
        let client = Client::new(Options { url: "http://host:1/dm".into(), ..Options::default() }).unwrap();
        assert_eq!(client.at(paths::TOKEN).unwrap().as_str(), "http://host:1/dm/api/v1/auth/token");
    }
}
