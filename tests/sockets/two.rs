//! An HTTP/2 server on loopback, frame by frame (RFC 9113), that does as its script says. It knows no header compression, so
//! that of a request it sees the body alone.
#![allow(unreachable_pub)]

use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
    time::sleep,
};

const PAUSE: Duration = Duration::from_millis(20);

pub const NO_ERROR: u32 = 0;
pub const INTERNAL_ERROR: u32 = 2;
pub const REFUSED_STREAM: u32 = 7;
pub const CALM: u32 = 11;

/// A part of what is done about one request.
#[derive(Clone, Copy, Debug)]
pub enum Part {
    /// The head of the response, and whether that is all.
    Head(u16, bool),
    /// Data of the response, and whether that is all.
    Data(&'static str, bool),
    /// The stream is reset.
    Rst(u32),
    /// No streams above this one will be looked at.
    Goaway(u32),
    /// This one will not be, either.
    GoawayBefore(u32),
    Pause,
    /// The connection is closed.
    Close,
}

/// What is done about one request.
#[derive(Clone, Debug)]
pub struct Act {
    parts: Vec<Part>,
    early: bool,
}

/// This, when the request is complete.
pub fn act(parts: impl Into<Vec<Part>>) -> Act {
    Act { parts: parts.into(), early: false }
}

pub fn ok(body: &'static str) -> Act {
    act([Part::Head(200, false), Part::Data(body, true)])
}

impl Act {
    /// As soon as the head of the request is there; the body is not read, and no window given for it.
    pub fn early(self) -> Self {
        Self { early: true, ..self }
    }
}

/// A request, as far as it was read.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub body: Vec<u8>,
}

#[derive(Default)]
struct Shared {
    script: Mutex<VecDeque<Act>>,
    seen: Mutex<Vec<Seen>>,
    accepted: AtomicUsize,
}

pub struct Server {
    pub uri: String,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Server {
    pub async fn start(script: impl IntoIterator<Item = Act>) -> Self {
        Self::on(super::one::bind().await, script)
    }

    pub fn on(listener: TcpListener, script: impl IntoIterator<Item = Act>) -> Self {
        let uri = format!("http://{}/", listener.local_addr().unwrap());
        let shared = Arc::new(Shared { script: Mutex::new(script.into_iter().collect()), ..Shared::default() });
        let accepting = tokio::spawn(accept(listener, shared.clone()));
        Self { uri, shared, accepting }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// Requests seen, connections accepted.
    pub fn counts(&self) -> (usize, usize) {
        (self.shared.seen.lock().unwrap().len(), self.shared.accepted.load(SeqCst))
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        shared.accepted.fetch_add(1, SeqCst);
        let shared = shared.clone();
        // An error means that the client is gone.
        connections.spawn(async move { serve(stream, &shared).await });
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

async fn serve(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    // The client's preface.
    stream.read_exact(&mut [0; 24]).await?;
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await?;
    let mut under_way: HashMap<u32, (usize, Act)> = HashMap::new();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload).await?;
        let (kind, flags) = (head[3], head[4]);
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let act = match kind {
            SETTINGS if flags & ACK == 0 => {
                stream.write_all(&frame(SETTINGS, ACK, 0, &[])).await?;
                continue;
            }
            PING if flags & ACK == 0 => {
                stream.write_all(&frame(PING, ACK, 0, &payload)).await?;
                continue;
            }
            HEADERS => {
                let act = shared.script.lock().unwrap().pop_front().unwrap_or(act([Part::Head(418, true)]));
                let index = {
                    let mut seen = shared.seen.lock().unwrap();
                    seen.push(Seen::default());
                    seen.len() - 1
                };
                if !act.early && flags & END_STREAM == 0 {
                    under_way.insert(id, (index, act));
                    continue;
                }
                act
            }
            DATA => {
                // Other streams are not to suffer from one that is not read.
                let length = u32::try_from(payload.len()).unwrap();
                if length > 0 {
                    stream.write_all(&frame(WINDOW_UPDATE, 0, 0, &length.to_be_bytes())).await?;
                }
                let Some((index, _)) = under_way.get(&id) else { continue };
                if length > 0 && flags & END_STREAM == 0 {
                    stream.write_all(&frame(WINDOW_UPDATE, 0, id, &length.to_be_bytes())).await?;
                }
                shared.seen.lock().unwrap()[*index].body.extend(payload);
                if flags & END_STREAM == 0 {
                    continue;
                }
                let Some((_, act)) = under_way.remove(&id) else { continue };
                act
            }
            _ => continue,
        };
        for part in act.parts {
            let bytes = match part {
                // `:status` with a value of its own, neither compressed nor indexed (RFC 7541 §6.2.2).
                Part::Head(status, end) => {
                    let end = if end { END_STREAM } else { 0 };
                    frame(HEADERS, END_HEADERS | end, id, &[&[8, 3], status.to_string().as_bytes()].concat())
                }
                Part::Data(text, end) => frame(DATA, if end { END_STREAM } else { 0 }, id, text.as_bytes()),
                Part::Rst(code) => frame(RST_STREAM, 0, id, &code.to_be_bytes()),
                Part::Goaway(code) => frame(GOAWAY, 0, 0, &[id.to_be_bytes(), code.to_be_bytes()].concat()),
                Part::GoawayBefore(code) => {
                    frame(GOAWAY, 0, 0, &[id.saturating_sub(2).to_be_bytes(), code.to_be_bytes()].concat())
                }
                Part::Pause => {
                    sleep(PAUSE).await;
                    continue;
                }
                // Read to the end, as what is left unread would throw away what is on its way.
                Part::Close => {
                    stream.shutdown().await?;
                    while stream.read(&mut [0; 1024]).await? > 0 {}
                    return Ok(());
                }
            };
            stream.write_all(&bytes).await?;
        }
    }
}
