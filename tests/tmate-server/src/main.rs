//! A tmate server for the tests: it takes one session at a time, does what stdin says, and tells on stdout
//! what the session does. It must never be more than that: there are no mates but those that stdin plays.
//!
//! `tmate-server KEY [plain|counting|keys|mute]`, where KEY is a private host key. The first line is
//! `listening PORT`. Kinds: `plain` is tmate-ssh-server alone, `counting` one with its second daemon, `keys`
//! wants keys, and `mute` gives no link.
//!
//! | stdin | |
//! |---|---|
//! | `join`, `leave` | a mate comes, goes |
//! | `type TEXT` | a mate types TEXT and enter |
//! | `drop` | the connection is cut; the next one gets another token |
//! | `away`, `back` | it is cut, and new ones are until `back` |
//!
//! | stdout | |
//! |---|---|
//! | `connected`, `gone` | a session has come, is gone |
//! | `ready TOKEN` | it has its link |
//! | `windows COUNT` | so many it has now |
//! | `set NAME VALUE` | an option of its conf, in the order of the conf |
//! | `screen TEXT` | what its windows show, with control characters escaped |
//! | `done COMMAND` | what stdin said is done |

mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use russh::server::{Auth, ChannelOpenHandle, Config, Handle, Handler, Msg, Session};
use russh::{Channel, ChannelId};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::sync::Mutex;

use self::wire::{Value, decode, message};

/// What tmate sends and gets, by number (tmate's `tmate-protocol.h`).
mod kind {
    pub(crate) const OUT_SYNC_LAYOUT: i64 = 1;
    pub(crate) const OUT_PTY_DATA: i64 = 2;
    pub(crate) const OUT_READY: i64 = 9;
    pub(crate) const OUT_EXEC_CMD: i64 = 12;
    pub(crate) const IN_NOTIFY: u8 = 0;
    pub(crate) const IN_RESIZE: u8 = 2;
    pub(crate) const IN_SET_ENV: u8 = 4;
    pub(crate) const IN_READY: u8 = 5;
    pub(crate) const IN_PANE_KEY: u8 = 6;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Plain,
    Counting,
    Keys,
    Mute,
}

#[derive(Debug)]
struct Shared {
    style: Style,
    port: u16,
    tokens: AtomicU32,
    is_away: AtomicBool,
    /// Line ends that the windows have shown.
    lines_shown: AtomicUsize,
    session: Mutex<Option<(u32, Handle, ChannelId)>>,
}

fn say(text: &str) {
    use std::io::Write;
    let mut stdout = std::io::stdout().lock();
    // Whoever started it has gone, and it ends with its stdin.
    let _ = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
}

/// In one line: control characters are escaped.
fn escaped(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

fn text(text: &str) -> Value {
    Value::Bytes(text.as_bytes().to_vec())
}

fn notify(line: &str) -> Vec<u8> {
    message(kind::IN_NOTIFY, &[text(line)])
}

fn set(name: &str, value: &str) -> Vec<u8> {
    message(kind::IN_SET_ENV, &[text(name), text(value)])
}

impl Shared {
    async fn send(&self, messages: Vec<Vec<u8>>) {
        if let Some((_, handle, channel)) = &*self.session.lock().await {
            for message in messages {
                let _ = handle.data(*channel, message).await;
            }
        }
    }

    async fn cut(&self) {
        if let Some((_, handle, _)) = self.session.lock().await.take() {
            let _ = handle.disconnect(russh::Disconnect::ByApplication, "cut".into(), String::new()).await;
        }
    }

    /// What a server tells a session that is ready.
    fn welcome(&self, token: u32) -> Vec<Vec<u8>> {
        let ssh = format!("ssh -p{} token{token}@127.0.0.1", self.port);
        let read_only = format!("ssh -p{} ro-token{token}@127.0.0.1", self.port);
        let mut messages = vec![
            notify(&format!("ssh session read only: {read_only}")),
            set("tmate_ssh_ro", &read_only),
            notify(&format!("ssh session: {ssh}")),
            set("tmate_ssh", &ssh),
        ];
        if self.style == Style::Counting {
            messages.push(set("tmate_web", &format!("http://127.0.0.1/t/token{token}")));
            messages.push(set("tmate_num_clients", "0"));
        }
        messages.push(message(kind::IN_READY, &[]));
        if self.style == Style::Keys {
            messages.push(notify("Server requires authorized_keys but none are given."));
        }
        messages
    }

    /// Messages for a mate that has come (`there`) or gone.
    fn mate(&self, there: bool) -> Vec<Vec<u8>> {
        let (columns, lines) = if there { (132, 40) } else { (-1, -1) };
        let mut messages = Vec::new();
        if self.style == Style::Counting {
            let count = i32::from(there);
            let what = if there { "joined" } else { "left" };
            messages.push(set("tmate_num_clients", &count.to_string()));
            messages.push(notify(&format!("A mate has {what} (192.0.2.1) -- {count} client currently connected")));
        }
        messages.push(message(kind::IN_RESIZE, &[Value::Number(columns), Value::Number(lines)]));
        messages
    }

    /// While it writes, tmate's libssh may take keys off the socket, and tmate sees them only when there is more
    /// to read: without a word from here, until they have ended a line, that is after 60 s.
    async fn remind(self: Arc<Self>, lines_before: usize) {
        while self.lines_shown.load(Ordering::SeqCst) == lines_before && self.session.lock().await.is_some() {
            tokio::time::sleep(Duration::from_millis(100)).await;
            self.send(vec![set("tmate_test", "")]).await;
        }
    }

    async fn obey(self: &Arc<Self>, line: &str) {
        match line.split_once(' ').unwrap_or((line, "")) {
            ("join", _) => self.send(self.mate(true)).await,
            ("leave", _) => self.send(self.mate(false)).await,
            ("type", keys) => {
                let key = |key: char| {
                    let numbers = [-1, i64::from(u32::from(key))].map(Value::Number);
                    message(kind::IN_PANE_KEY, &numbers)
                };
                let before = self.lines_shown.load(Ordering::SeqCst);
                self.send(keys.chars().chain(['\r']).map(key).collect()).await;
                tokio::spawn(Arc::clone(self).remind(before));
            }
            ("drop", _) => self.cut().await,
            ("away", _) => {
                self.is_away.store(true, Ordering::SeqCst);
                self.cut().await;
            }
            ("back", _) => self.is_away.store(false, Ordering::SeqCst),
            _ => say(&format!("unknown {line}")),
        }
        say(&format!("done {line}"));
    }
}

struct Client {
    shared: Arc<Shared>,
    token: u32,
    received: Vec<u8>,
}

impl Client {
    async fn take(&mut self, values: &[Value]) {
        match values {
            [Value::Number(kind::OUT_READY), ..] if self.shared.style != Style::Mute => {
                self.shared.send(self.shared.welcome(self.token)).await;
                say(&format!("ready token{}", self.token));
            }
            [Value::Number(kind::OUT_SYNC_LAYOUT), _, _, Value::Array(windows), ..] => {
                say(&format!("windows {}", windows.len()));
            }
            [Value::Number(kind::OUT_PTY_DATA), _, output] => {
                let text = output.text();
                self.shared.lines_shown.fetch_add(text.matches('\n').count(), Ordering::SeqCst);
                say(&format!("screen {}", escaped(&text)));
            }
            [Value::Number(kind::OUT_EXEC_CMD), name, words @ ..] if name.text().starts_with("set") => {
                let words: Vec<_> = words.iter().map(Value::text).filter(|word| !word.starts_with('-')).collect();
                say(&format!("set {}", escaped(&words.join(" "))));
            }
            _ => {}
        }
    }
}

impl Handler for Client {
    type Error = russh::Error;

    async fn auth_none(&mut self, _: &str) -> Result<Auth, Self::Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        *self.shared.session.lock().await = Some((self.token, session.handle(), channel.id()));
        reply.accept().await;
        say("connected");
        Ok(())
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        if name == "tmate" { session.channel_success(channel) } else { session.channel_failure(channel) }
    }

    async fn data(&mut self, _: ChannelId, data: &[u8], _: &mut Session) -> Result<(), Self::Error> {
        self.received.extend(data);
        let received = std::mem::take(&mut self.received);
        let mut rest = &received[..];
        while let Some((value, after)) = decode(rest) {
            rest = after;
            if let Value::Array(values) = value {
                self.take(&values).await;
            }
        }
        self.received = rest.to_vec();
        Ok(())
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>, config: Arc<Config>) {
    while let Ok((stream, _)) = listener.accept().await {
        if shared.is_away.load(Ordering::SeqCst) {
            continue;
        }
        let token = shared.tokens.fetch_add(1, Ordering::SeqCst);
        let client = Client { shared: Arc::clone(&shared), token, received: Vec::new() };
        let (shared, config) = (Arc::clone(&shared), Arc::clone(&config));
        tokio::spawn(async move {
            if let Ok(running) = russh::server::run_stream(config, stream, client).await {
                let _ = running.await;
            }
            let mut session = shared.session.lock().await;
            if session.as_ref().is_some_and(|(current, ..)| *current == token) {
                *session = None;
            }
            say("gone");
        });
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let key = arguments.next().ok_or("usage: tmate-server KEY [plain|counting|keys|mute]")?;
    let style = match arguments.next().as_deref() {
        None | Some("plain") => Style::Plain,
        Some("counting") => Style::Counting,
        Some("keys") => Style::Keys,
        Some("mute") => Style::Mute,
        Some(other) => return Err(format!("unknown kind `{other}`").into()),
    };
    let config = Config {
        keys: vec![russh::keys::load_secret_key(&key, None)?],
        inactivity_timeout: None,
        nodelay: true,
        ..Config::default()
    };
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let port = listener.local_addr()?.port();
    let shared = Arc::new(Shared {
        style,
        port,
        tokens: AtomicU32::new(1),
        is_away: AtomicBool::new(false),
        lines_shown: AtomicUsize::new(0),
        session: Mutex::new(None),
    });
    tokio::spawn(serve(listener, Arc::clone(&shared), Arc::new(config)));
    say(&format!("listening {port}"));
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        shared.obey(&line).await;
    }
    Ok(())
}
