//! The decision maker: listens to its stream of strategies, asks again and again where it has none, and tells it the
//! counters. Whatever it does, and for however long it is gone, ends here.

use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::time::Duration;

use gthulhu_api::client::{Auth, Client, Error, Message, Options, Tls};
use gthulhu_api::{Counters, StrategyList};
use gthulhu_config::{Api, Secret};
use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, sleep};

use super::link::now_ns;
use crate::desk::{Ask, Caller};

/// The first wait after something went wrong; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Where there is no stream, one is looked for again after this: the decision maker may have been replaced.
const STREAM_AGAIN: Duration = Duration::from_secs(300);
/// A stream that was heard for so long was a good one: the next is tried at once.
const GOOD_STREAM: Duration = Duration::from_secs(10);
/// No more lists than this are taken in a row: a decision maker that sends without end is slowed down.
const PACE: Duration = Duration::from_millis(5);

/// What is heard of it.
#[derive(Debug)]
pub(super) enum Heard {
    /// These hold; received at this time (ns of `CLOCK_MONOTONIC`).
    List { list: Box<StrategyList>, received_ns: u64, by: By },
    /// What it told last still holds.
    Alive,
    /// Something is wrong with it.
    Trouble(String),
    /// The counters could not be told, or could again.
    Told(Result<(), String>),
}

/// How it is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Stream,
    Polling,
}

impl By {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Polling => "polling",
        }
    }
}

/// Waits that grow while things go wrong, each somewhere between half of itself and itself, so that a thousand nodes do
/// not come back at once.
#[derive(Debug)]
struct Backoff {
    next: Duration,
    most: Duration,
}

impl Backoff {
    /// Never so long that strategies fade meanwhile.
    fn new(ttl: Duration) -> Self {
        Self { next: FIRST_WAIT, most: (ttl / 4).clamp(FIRST_WAIT, LONGEST_WAIT) }
    }

    fn wait(&mut self) -> Duration {
        let whole = self.next.min(self.most);
        self.next = (whole * 2).min(self.most);
        jittered(whole)
    }
}

fn jittered(whole: Duration) -> Duration {
    // Keyed anew for each state: as good as a die here.
    let random = RandomState::new().hash_one(0) as f64 / u64::MAX as f64;
    whole.mul_f64(0.5 + random / 2.0)
}

/// Listens for ever. Ends when nobody hears it any more.
pub(super) async fn run(api: Api, to: Sender<Heard>, caller: Caller) {
    let ttl = Duration::from_secs(api.strategy_ttl_sec.into());
    let mut backoff = Backoff::new(ttl);
    while !to.is_closed() {
        let begun = Instant::now();
        // Files are read anew each time: certificates and tokens are renewed under us.
        let why = match options(&api).and_then(|options| Client::new(options).map_err(|e| e.to_string())) {
            Ok(client) => tokio::select! {
                why = feed(&client, &api, &to) => why,
                () = tell(&client, &api, &to, &caller) => return,
            },
            Err(why) => why,
        };
        if to.send(Heard::Trouble(why)).await.is_err() {
            return;
        }
        if begun.elapsed() > GOOD_STREAM {
            backoff = Backoff::new(ttl);
        }
        sleep(backoff.wait()).await;
    }
}

/// Strategies, until something goes wrong. Asked for once before the stream is tried, and again and again when that gives
/// nothing: there may be none, or somebody in between who holds it back.
async fn feed(client: &Client, api: &Api, to: &Sender<Heard>) -> String {
    let interval = Duration::from_secs(api.interval);
    loop {
        if let Err(why) = poll(client, to).await {
            return why;
        }
        let mut heard = false;
        match listen(client, to, &mut heard).await {
            Err(e) if heard => return e.to_string(),
            Err(_) => {}
            Ok(()) => return "nobody listens".into(),
        }
        let again = Instant::now() + STREAM_AGAIN;
        while Instant::now() < again {
            sleep(jittered(interval)).await;
            if let Err(why) = poll(client, to).await {
                return why;
            }
        }
    }
}

async fn poll(client: &Client, to: &Sender<Heard>) -> Result<(), String> {
    let list = Box::new(client.strategies().await.map_err(|e| e.to_string())?);
    let heard = Heard::List { list, received_ns: now_ns(), by: By::Polling };
    to.send(heard).await.map_err(|_| "nobody listens".into())
}

async fn listen(client: &Client, to: &Sender<Heard>, has_heard: &mut bool) -> Result<(), Error> {
    let mut stream = client.stream().await?;
    loop {
        let heard = match stream.next().await? {
            Message::Strategies(list) => {
                Heard::List { list: Box::new(list), received_ns: now_ns(), by: By::Stream }
            }
            Message::Alive => Heard::Alive,
        };
        *has_heard = true;
        if to.send(heard).await.is_err() {
            return Ok(());
        }
        sleep(PACE).await;
    }
}

/// The counters, for ever. That they cannot be told is no reason not to listen.
async fn tell(client: &Client, api: &Api, to: &Sender<Heard>, caller: &Caller) {
    let interval = Duration::from_secs(api.interval);
    loop {
        sleep(interval).await;
        // Without a scheduler there are none.
        let Some(counters) = counters(caller).await else { continue };
        let told = client.tell(&counters).await.map_err(|e| e.to_string());
        if to.send(Heard::Told(told)).await.is_err() {
            return;
        }
    }
}

async fn counters(caller: &Caller) -> Option<Counters> {
    let answer = caller.ask(Ask::Status).ok()?;
    let status = tokio::time::timeout(Duration::from_secs(2), answer).await.ok()?.ok()?.ok()?;
    serde_json::from_value(status.get("statistics")?.clone()).ok()
}

fn options(api: &Api) -> Result<Options, String> {
    let url = api.url.clone().ok_or("api.url: is not given")?;
    let key = |path: &PathBuf| read("api.public_key_path", path);
    let auth = match (api.auth_enabled, &api.token_file, &api.public_key_path) {
        (false, ..) => Auth::None,
        (true, Some(path), _) => {
            Auth::Token(Secret::read(path).map_err(|e| format!("api.token_file: {e}"))?.reveal().to_owned())
        }
        (true, None, Some(path)) => Auth::Key(key(path)?),
        (true, None, None) => {
            return Err("api.auth_enabled: needs api.token_file or api.public_key_path".into());
        }
    };
    let mtls = &api.mtls;
    let pem = |inline: &Option<String>, file: &Option<PathBuf>, name: &str| match (inline, file) {
        (Some(pem), _) => Ok(Some(pem.clone())),
        (None, Some(path)) => read(name, path).map(Some),
        (None, None) => Ok(None),
    };
    let mut tls = Tls { ca_pem: pem(&mtls.ca_pem, &mtls.ca_file, "api.mtls.ca_file")?, ..Tls::default() };
    if mtls.enable {
        tls.cert_pem = pem(&mtls.cert_pem, &mtls.cert_file, "api.mtls.cert_file")?;
        let in_file = || {
            let read = |path: &PathBuf| Secret::read(path).map_err(|e| format!("api.mtls.key_file: {e}"));
            mtls.key_file.as_ref().map(read).transpose()
        };
        let key = if mtls.key_pem.is_set() { Some(mtls.key_pem.clone()) } else { in_file()? };
        tls.key_pem = key.map(|key| key.reveal().to_owned());
    }
    Ok(Options { url, auth, tls, ..Options::default() })
}

fn read(key: &str, path: &Path) -> Result<String, String> {
    use std::io::Read;
    let mut text = String::new();
    // Longer is no certificate.
    let file = std::fs::File::open(path).and_then(|file| file.take(256 << 10).read_to_string(&mut text));
    file.map(|_| text).map_err(|e| format!("{key}: cannot read {}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_differ() {
        let mut backoff = Backoff::new(Duration::from_secs(90));
        let waits: Vec<Duration> = (0..12).map(|_| backoff.wait()).collect();
        let whole = |n: u32| (FIRST_WAIT * 2u32.pow(n)).min(Duration::from_millis(22_500));
        for (n, wait) in (0..).zip(&waits) {
            assert!(*wait >= whole(n) / 2 && *wait <= whole(n), "wait {n} of {wait:?}");
        }
        let mut short = Backoff::new(Duration::from_secs(1));
        assert!((0..10).all(|_| short.wait() <= FIRST_WAIT));
        let some: std::collections::BTreeSet<Duration> = (0..20).map(|_| jittered(LONGEST_WAIT)).collect();
        assert!(some.len() > 10, "{some:?}");
    }
}
