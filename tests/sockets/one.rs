//! An HTTP/1 server on loopback that does as its script says, and keeps count.
#![allow(dead_code, unreachable_pub)]

use std::{
    borrow::Cow,
    collections::VecDeque,
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

/// Between two pieces of an answer, and before the end that follows one.
const PAUSE: Duration = Duration::from_millis(20);

/// What is done about one request.
#[derive(Clone, Debug)]
pub struct Act {
    // How much of the request's body is read before the answer; all of it, if `None`.
    read: Option<usize>,
    pieces: Vec<Cow<'static, [u8]>>,
    end: End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Keep,
    Close,
    Reset,
    Stall,
}

/// These bytes, and the connection is kept.
pub fn answer(bytes: impl Into<Vec<u8>>) -> Act {
    Act { read: None, pieces: vec![Cow::Owned(bytes.into())], end: End::Keep }
}

/// An answer with this status and this body.
pub fn status(status: u16, headers: &str, body: &str) -> Act {
    answer(format!("HTTP/1.1 {status} Scripted\r\n{headers}content-length: {}\r\n\r\n{body}", body.len()))
}

pub fn ok(body: &str) -> Act {
    status(200, "", body)
}

pub fn busy() -> Act {
    status(503, "", "busy")
}

/// No answer at all.
pub fn silence() -> Act {
    Act { read: None, pieces: Vec::new(), end: End::Stall }
}

impl Act {
    /// More of the answer, a moment later.
    pub fn and(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.pieces.push(Cow::Owned(bytes.into()));
        self
    }

    pub fn then_close(self) -> Self {
        Self { end: End::Close, ..self }
    }

    pub fn then_reset(self) -> Self {
        Self { end: End::Reset, ..self }
    }

    pub fn then_stall(self) -> Self {
        Self { end: End::Stall, ..self }
    }

    /// Before more than this much of the request's body was read; none of the rest is.
    pub fn after_reading(self, bytes: usize) -> Self {
        Self { read: Some(bytes), ..self }
    }
}

/// A request, as far as it was read.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub connection: usize,
    pub method: String,
    pub path: String,
    pub head: String,
    pub body: Vec<u8>,
}

type Script = dyn FnMut(&Seen) -> Act + Send;

struct Shared {
    script: Mutex<Box<Script>>,
    seen: Mutex<Vec<Seen>>,
    accepted: AtomicUsize,
    open: AtomicUsize,
    keeps_record: bool,
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
    /// Does one of these for each request, in their order.
    pub async fn start(script: impl IntoIterator<Item = Act>) -> Self {
        Self::on(bind().await, script)
    }

    pub fn on(listener: TcpListener, script: impl IntoIterator<Item = Act>) -> Self {
        let mut script: VecDeque<Act> = script.into_iter().collect();
        Self::with(listener, true, move |_| script.pop_front().unwrap_or_else(|| status(418, "", "not in the script")))
    }

    /// Does as `script` says about each request, of which it sees the head.
    pub fn with(listener: TcpListener, keeps_record: bool, script: impl FnMut(&Seen) -> Act + Send + 'static) -> Self {
        let uri = format!("http://{}/", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            script: Mutex::new(Box::new(script)),
            seen: Mutex::default(),
            accepted: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            keeps_record,
        });
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

    /// Connections that are open.
    pub fn open(&self) -> usize {
        self.shared.open.load(SeqCst)
    }
}

pub async fn bind() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let number = shared.accepted.fetch_add(1, SeqCst);
        shared.open.fetch_add(1, SeqCst);
        connections.spawn(serve(stream, number, Open(shared.clone())));
        while connections.try_join_next().is_some() {}
    }
}

struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, SeqCst);
    }
}

async fn serve(mut stream: TcpStream, number: usize, open: Open) {
    stream.set_nodelay(true).unwrap();
    // An error means that the client is gone.
    let _ = requests(&mut stream, number, &open.0).await;
}

async fn requests(stream: &mut TcpStream, number: usize, shared: &Shared) -> io::Result<()> {
    let mut input = Input { stream, buffer: Vec::with_capacity(1024) };
    loop {
        let Some(head) = input.head().await? else { return Ok(()) };
        let mut line = head.split(' ');
        let (method, path) = (line.next().unwrap_or_default().to_owned(), line.next().unwrap_or_default().to_owned());
        let mut seen = Seen { connection: number, method, path, head, body: Vec::new() };
        let act = (shared.script.lock().unwrap())(&seen);
        let index = shared.keeps_record.then(|| {
            let mut record = shared.seen.lock().unwrap();
            record.push(seen.clone());
            record.len() - 1
        });
        let read = input.body(&mut seen, act.read).await;
        if let Some(index) = index {
            shared.seen.lock().unwrap()[index] = seen;
        }
        read?;
        for (index, piece) in act.pieces.iter().enumerate() {
            if index > 0 {
                sleep(PAUSE).await;
            }
            input.stream.write_all(piece).await?;
        }
        if act.end == End::Reset && !act.pieces.is_empty() {
            sleep(PAUSE).await;
        }
        match act.end {
            End::Keep if act.read.is_none() => {}
            End::Close => return Ok(()),
            End::Reset => return input.stream.set_zero_linger(),
            // Until the client has enough of it. Reading would be more than it was told to do.
            End::Keep | End::Stall => {
                while act.read.is_none() && input.stream.read(&mut [0; 1024]).await? > 0 {}
                if act.read.is_some() {
                    std::future::pending::<()>().await;
                }
                return Ok(());
            }
        }
    }
}

struct Input<'a> {
    stream: &'a mut TcpStream,
    buffer: Vec<u8>,
}

impl Input<'_> {
    async fn more(&mut self) -> io::Result<bool> {
        Ok(self.stream.read_buf(&mut self.buffer).await? > 0)
    }

    /// `None` where the client closed the connection between two requests.
    async fn head(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                let head = self.buffer.drain(..end + 4).collect();
                return Ok(Some(String::from_utf8(head).expect("hyper sends text")));
            }
            if !self.more().await? {
                return Ok(None);
            }
        }
    }

    async fn body(&mut self, seen: &mut Seen, most: Option<usize>) -> io::Result<()> {
        let head = seen.head.to_ascii_lowercase();
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
        let length: usize = length.map_or(0, |length| length.parse().unwrap());
        if head.contains("transfer-encoding: chunked") {
            return self.chunks(seen, most).await;
        }
        let wanted = most.unwrap_or(length).min(length);
        while self.buffer.len() < wanted {
            if !self.more().await? {
                break;
            }
        }
        let there = self.buffer.len().min(length);
        seen.body.extend(self.buffer.drain(..there));
        if most.is_none() && there < length { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    async fn chunks(&mut self, seen: &mut Seen, most: Option<usize>) -> io::Result<()> {
        loop {
            if most.is_some_and(|most| seen.body.len() >= most) {
                return Ok(());
            }
            while let Some(end) = find(&self.buffer, b"\r\n") {
                let size = std::str::from_utf8(&self.buffer[..end]).expect("a number");
                let size = usize::from_str_radix(size, 16).expect("a number");
                if self.buffer.len() < end + 2 + size + 2 {
                    break;
                }
                let data: Vec<u8> = self.buffer.drain(..end + 2 + size + 2).skip(end + 2).take(size).collect();
                if data.is_empty() {
                    return Ok(());
                }
                seen.body.extend(data);
            }
            if most.is_some_and(|most| seen.body.len() >= most) {
                return Ok(());
            }
            if !self.more().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
