//! The real errors of hyper, hyper-util, h2, rustls and tower, and what they mean to HTTP (law 14).
#![cfg(all(feature = "gemini", feature = "testing"))]

use std::{
    convert::Infallible,
    error::Error,
    fmt::Write as _,
    future::{pending, ready},
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, Uri, Version};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty, Full, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, Error as ClientError, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, duplex},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    time::timeout,
};
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_tenacity::{
    RetryLayer, RetryPolicy,
    body::CollectBody,
    classify::Class,
    policy::{self, http::Classifier},
    wait,
};

const UNSENT: Class = Class::unsent();
// Only a hang gets there.
const LONG: Duration = Duration::from_secs(20);

type SomeBody = UnsyncBoxBody<Bytes, io::Error>;

/// The class of an error; it is the same behind a box and behind tower's layers.
fn class(error: impl Into<BoxError>) -> Class {
    let error = error.into();
    let class = Classifier::new().class_of_error(&*error).expect("an opinion");
    let text = shown(&*error);
    let wrapped: BoxError = Box::new(io::Error::other(error));
    assert_eq!(Classifier::new().class_of_error(&*wrapped), Some(class), "{text}");
    class
}

fn shown(error: &(dyn Error + 'static)) -> String {
    let mut shown = format!("{error:?}: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(shown, ": {error}");
        cause = error.source();
    }
    shown
}

/// Asserts the class of the error, and that it is the one that was meant.
#[track_caller]
fn assert_class(error: impl Into<BoxError>, expected: Class, words: &str) {
    let error = error.into();
    let text = shown(&*error);
    assert!(text.contains(words), "{text}");
    assert_eq!(class(error), expected, "{text}");
}

fn full(text: &'static str) -> SomeBody {
    Full::from(text).map_err(|never| match never {}).boxed_unsync()
}

fn post(uri: impl AsRef<str>) -> Request<SomeBody> {
    Request::post(uri.as_ref()).body(full("body")).unwrap()
}

fn client() -> Client<HttpConnector, SomeBody> {
    Client::builder(TokioExecutor::new()).build_http()
}

async fn fails(client: Client<HttpConnector, SomeBody>, request: Request<SomeBody>) -> ClientError {
    timeout(LONG, client.request(request)).await.expect("it ends").expect_err("it fails")
}

/// A server that answers one request with this and hangs up.
async fn server(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let _ = socket.read(&mut [0; 1024]).await.unwrap();
        let _ = socket.write_all(answer).await;
        // Read to the end: what is left unread would throw away what is on its way.
        let _ = socket.shutdown().await;
        let _ = socket.read_to_end(&mut Vec::new()).await;
    });
    format!("http://{address}/")
}

async fn nobody_there() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn a_refused_connection_was_never_sent_anything() {
    let nobody = nobody_there().await;
    assert_class(TcpStream::connect(nobody).await.unwrap_err(), UNSENT, "refused");
    let error = fails(client(), post(format!("http://{nobody}/"))).await;
    assert!(error.is_connect());
    assert_class(error, UNSENT, "client error (Connect)");
    let error = HttpConnector::new().oneshot(format!("http://{nobody}/").parse::<Uri>().unwrap()).await.unwrap_err();
    assert_class(error, UNSENT, "tcp connect error");
}

#[tokio::test]
async fn a_refused_connection_is_found_through_layers() {
    let uri = format!("http://{}/", nobody_there().await);
    let layered = ServiceBuilder::new().buffer(4).timeout(LONG).load_shed().concurrency_limit(4).service(client());
    assert_class(layered.oneshot(post(&uri)).await.unwrap_err(), UNSENT, "client error (Connect)");
}

#[tokio::test]
async fn a_buffer_whose_service_failed_shows_why() {
    struct NeverReady;
    impl Service<()> for NeverReady {
        type Response = ();
        type Error = io::Error;
        type Future = std::future::Ready<io::Result<()>>;
        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into()))
        }
        fn call(&mut self, (): ()) -> Self::Future {
            ready(Ok(()))
        }
    }
    let buffered = ServiceBuilder::new().buffer(4).service(NeverReady);
    assert_class(buffered.oneshot(()).await.unwrap_err(), UNSENT, "buffered service failed");

    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut orphan = {
        let _enter = runtime.enter();
        ServiceBuilder::new().buffer(4).service(service_fn(|(): ()| ready(Ok::<_, Infallible>(()))))
    };
    tokio::task::spawn_blocking(|| drop(runtime)).await.unwrap();
    assert_class(orphan.ready().await.err().unwrap(), Class::Permanent, "worker closed unexpectedly");
}

#[tokio::test]
async fn a_name_that_is_not_found_was_never_sent_anything() {
    // Too long for a label, so nobody has to be asked.
    let name = "a".repeat(64);
    let error = fails(client(), post(format!("http://{name}.invalid/"))).await;
    assert_class(error, UNSENT, "dns error");
    assert_class(tokio::net::lookup_host(format!("{name}.invalid:80")).await.err().unwrap(), UNSENT, "lookup");

    let resolver = service_fn(|_: hyper_util::client::legacy::connect::dns::Name| {
        ready(Err::<std::vec::IntoIter<SocketAddr>, _>(io::Error::from(io::ErrorKind::TimedOut)))
    });
    let error = HttpConnector::new_with_resolver(resolver).oneshot(Uri::from_static("http://a/")).await.unwrap_err();
    assert_class(error, UNSENT, "dns error");
}

#[test]
fn a_name_that_windows_does_not_find_was_never_sent_anything() {
    for code in 11_001..=11_004 {
        assert_class(io::Error::from_raw_os_error(code), UNSENT, &code.to_string());
    }
    for code in [11_000, 11_005] {
        assert_class(io::Error::from_raw_os_error(code), Class::transient(), &code.to_string());
    }
    assert_class(io::Error::other("No such host is known. (os error 11001)"), UNSENT, "11001");
    assert_class(io::Error::other("said: No such host is known. (os error 11001)"), Class::transient(), "11001");
}

#[tokio::test]
async fn what_cannot_be_sent_like_this_is_permanent() {
    let at = server(b"").await;
    let mut old = post(&at);
    *old.version_mut() = Version::HTTP_09;
    assert_class(fails(client(), old).await, Class::Permanent, "UserUnsupportedVersion");
    let mut tunnel = post(&at);
    (*tunnel.version_mut(), *tunnel.method_mut()) = (Version::HTTP_10, Method::CONNECT);
    assert_class(fails(client(), tunnel).await, Class::Permanent, "UserUnsupportedRequestMethod");
    assert_class(fails(client(), post("/relative")).await, Class::Permanent, "UserAbsoluteUriRequired");
    assert_class(fails(client(), post("https://127.0.0.1/")).await, Class::Permanent, "scheme is not http");
}

#[tokio::test]
async fn a_connection_that_ends_early_is_transient() {
    for answer in [&b""[..], b"HTTP/1.1 200 OK\r\ncontent-le", b"HTTP/1.1 100 Continue\r\n\r\n"] {
        let error = fails(client(), post(server(answer).await)).await;
        assert_class(error, Class::transient(), "connection closed before message completed");
    }
    let error = fails(client(), post(server(b"SSH-2.0-OpenSSH_9.6\r\n\r\n").await)).await;
    assert_class(error, Class::transient(), "invalid HTTP version");
}

#[tokio::test]
async fn a_head_that_is_too_large_stays_too_large() {
    let answer = format!("HTTP/1.1 200 OK\r\na: {}\r\n\r\n", "x".repeat(1 << 20)).into_bytes().leak();
    let error = fails(client(), post(server(answer).await)).await;
    assert_class(error, Class::Permanent, "message head is too large");
}

#[tokio::test]
async fn a_request_body_that_fails_is_the_callers_matter() {
    let at = server(b"").await;
    let error = fails(client(), Request::post(at).body(Failing.boxed_unsync()).unwrap()).await;
    assert_class(error, Class::Permanent, "error from user's Body stream");
}

#[tokio::test]
async fn a_request_body_that_fails_is_the_callers_matter_over_http_2_too() {
    let at = server2(Vec::new(), pending()).await;
    let error = fails(client2(), Request::post(at).body(Failing.boxed_unsync()).unwrap()).await;
    assert_class(error, Class::Permanent, "stream error sent by user");
}

/// A body that comes from a connection which is lost.
struct Failing;

impl Body for Failing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Poll::Ready(Some(Err(io::ErrorKind::ConnectionRefused.into())))
    }
}

#[tokio::test]
async fn a_response_that_breaks_off_is_transient() {
    let at = server(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
    let response: Response<Incoming> = client().request(post(at)).await.unwrap();
    assert_class(response.into_body().collect().await.unwrap_err(), Class::transient(), "end of file");
}

#[tokio::test]
async fn a_request_that_was_still_queued_was_never_sent() {
    let handshake = || async {
        let (ours, theirs) = duplex(1 << 16);
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(ours)).await.unwrap();
        (sender, connection, theirs)
    };
    let get = || Request::get("/").body(Empty::<Bytes>::new()).unwrap();

    let (mut sender, connection, _theirs) = handshake().await;
    drop(connection);
    assert_class(sender.send_request(get()).await.unwrap_err(), UNSENT, "connection was not ready");

    // In the queue when the connection was dropped.
    let (mut sender, connection, _theirs) = handshake().await;
    let sent = sender.send_request(get());
    drop(connection);
    assert_class(sent.await.unwrap_err(), UNSENT, "connection closed");

    // In the queue when the connection failed.
    let (mut sender, connection, mut theirs) = handshake().await;
    theirs.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").await.unwrap();
    let sent = sender.send_request(get());
    let _ = connection.await;
    assert_class(sent.await.unwrap_err(), UNSENT, "operation was canceled");

    // Under way: nobody knows how far it came.
    let (mut sender, connection, mut theirs) = handshake().await;
    let sent = sender.send_request(get());
    let connection = tokio::spawn(connection);
    let _ = theirs.read(&mut [0; 16]).await.unwrap();
    connection.abort();
    assert_class(sent.await.unwrap_err(), Class::transient(), "dispatch task is gone");
}

#[tokio::test]
async fn refusals_by_towers_layers_are_told_apart() {
    let stuck = || service_fn(|(): ()| pending::<Result<(), io::Error>>());
    let shed = ServiceBuilder::new().load_shed().concurrency_limit(1).service(stuck());
    let mut busy = shed.clone();
    let _under_way = busy.ready().await.unwrap().call(());
    assert_class(shed.oneshot(()).await.unwrap_err(), UNSENT, "service overloaded");

    let slow = ServiceBuilder::new().timeout(Duration::from_millis(1)).service(stuck());
    assert_class(slow.oneshot(()).await.unwrap_err(), Class::transient(), "timed out");
}

/// A server of connections that each see one request and one answer.
async fn server_of(answers: &'static [&'static [u8]]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for answer in answers {
            let (mut socket, _) = listener.accept().await.unwrap();
            let _ = socket.read(&mut [0; 1024]).await.unwrap();
            socket.write_all(answer).await.unwrap();
            socket.shutdown().await.unwrap();
            let _ = socket.read_to_end(&mut Vec::new()).await;
        }
    });
    format!("http://{address}/")
}

#[tokio::test]
async fn a_call_gets_through_whatever_goes_wrong_on_the_way() {
    const ANSWERS: &[&[u8]] = &[
        b"HTTP/1.1 503 Service Unavailable\r\nretry-after-ms: 1\r\ncontent-length: 0\r\n\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    ];
    let get = |uri: String| Request::get(uri).body(Empty::<Bytes>::new()).unwrap();
    let client = || Client::builder(TokioExecutor::new()).build_http();
    let wait = || wait::fixed(Duration::from_millis(1));

    let policy = RetryPolicy::new().wait(wait()).classify(policy::http::classify());
    let typed = ServiceBuilder::new().layer(RetryLayer::new(policy)).service(client());
    let answer = timeout(LONG, typed.oneshot(get(server_of(ANSWERS).await))).await.unwrap().unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "ok");

    let policy = RetryPolicy::new().wait(wait()).classify(policy::http::classify());
    let boxed = ServiceBuilder::new().layer(RetryLayer::new(policy)).buffer(4).timeout(LONG).service(client());
    let answer = timeout(LONG, boxed.oneshot(get(server_of(ANSWERS).await))).await.unwrap().unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "ok");
}

#[tokio::test]
async fn a_response_that_is_too_long_is_as_long_the_next_time() {
    for (answer, class) in [
        (&b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"[..], Class::Permanent),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", Class::Permanent),
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 5\r\n\r\nhello", Class::Permanent),
        (b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 5\r\n\r\nhello", Class::throttled(None)),
        (b"HTTP/1.1 503 Unavailable\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", Class::transient()),
    ] {
        let at = server(answer).await;
        let error = CollectBody::new(client(), 4).oneshot(post(at)).await.unwrap_err();
        assert_class(error, class, "longer than 4 bytes");
    }
}

// HTTP/2, frame by frame.

const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

/// The stream with this number is reset.
fn rst_stream(stream: u32, code: u32) -> Vec<u8> {
    [&[0, 0, 4, 3, 0][..], &stream.to_be_bytes(), &code.to_be_bytes()].concat()
}

/// No streams above this number will be looked at.
fn goaway(last: u32, code: u32, debug: &[u8]) -> Vec<u8> {
    let length = u8::try_from(8 + debug.len()).unwrap();
    [&[0, 0, length, 7, 0, 0, 0, 0, 0][..], &last.to_be_bytes(), &code.to_be_bytes(), debug].concat()
}

/// `:status: 200`, and more to come.
fn headers(stream: u32) -> Vec<u8> {
    [&[0, 0, 1, 1, 4][..], &stream.to_be_bytes(), &[0x88]].concat()
}

/// An HTTP/2 server that answers the first request with these bytes and, once it is told to, with more of them.
async fn server2(answer: Vec<u8>, more: impl Future<Output = Vec<u8>> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.read_exact(&mut [0; 24]).await.unwrap();
        socket.write_all(SETTINGS).await.unwrap();
        loop {
            let mut head = [0; 9];
            socket.read_exact(&mut head).await.unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            socket.read_exact(&mut vec![0; length]).await.unwrap();
            if head[3] == 1 {
                break;
            }
        }
        socket.write_all(&answer).await.unwrap();
        socket.write_all(&more.await).await.unwrap();
        // Then it hangs up, and not before everything is read: that would throw away what is on its way.
        socket.shutdown().await.unwrap();
        let _ = socket.read_to_end(&mut Vec::new()).await;
    });
    format!("http://{address}/")
}

fn client2() -> Client<HttpConnector, SomeBody> {
    Client::builder(TokioExecutor::new()).http2_only(true).build_http()
}

/// What becomes of a request that is answered like this, where the connection stays.
async fn fails2(answer: Vec<u8>) -> ClientError {
    fails(client2(), post(server2(answer, pending()).await)).await
}

#[tokio::test]
async fn a_refused_stream_was_never_looked_at() {
    assert_class(fails2(rst_stream(1, 7)).await, UNSENT, "REFUSED_STREAM");
}

#[tokio::test]
async fn other_resets_say_what_they_say() {
    const NO_ERROR: u32 = 0;
    const CALM: u32 = 11;
    for code in [NO_ERROR, 1, 2, 3, 5, 8, 99] {
        assert_eq!(class(fails2(rst_stream(1, code)).await), Class::transient(), "{code}");
    }
    assert_class(fails2(rst_stream(1, CALM)).await, Class::throttled(None), "ENHANCE_YOUR_CALM");
    assert_class(fails2(rst_stream(1, 12)).await, Class::Permanent, "INADEQUATE_SECURITY");
    assert_class(fails2(rst_stream(1, 13)).await, Class::Permanent, "HTTP_1_1_REQUIRED");
}

#[tokio::test]
async fn a_stream_above_the_last_of_a_goaway_was_never_looked_at() {
    assert_class(fails2(goaway(0, 0, b"")).await, UNSENT, "NO_ERROR");
    assert_class(fails2(goaway(0, 0, b"deploying")).await, UNSENT, "deploying");
    assert_class(fails2(goaway(0, 0, b" (b\"x")).await, UNSENT, "NO_ERROR");
}

#[tokio::test]
async fn a_stream_that_a_goaway_leaves_open_may_have_been_carried_out() {
    let at = server2(goaway(1, 0, b""), ready(Vec::new())).await;
    assert_class(fails(client2(), post(at)).await, Class::transient(), "broken pipe");
    let error = fails2(goaway(0, 2, b"not a result of an error")).await;
    assert_class(error, Class::transient(), "INTERNAL_ERROR");
    let error = fails2(goaway(0, 11, b"too_many_pings")).await;
    assert_class(error, Class::throttled(None), "ENHANCE_YOUR_CALM");
}

#[tokio::test]
async fn a_body_that_is_refused_half_way_was_looked_at() {
    let (refuse, refused) = oneshot::channel();
    let at = server2(headers(1), async { refused.await.unwrap() }).await;
    let response = timeout(LONG, client2().request(post(at))).await.unwrap().unwrap();
    refuse.send(rst_stream(1, 7)).unwrap();
    let error = timeout(LONG, response.into_body().collect()).await.unwrap().unwrap_err();
    assert_class(error, Class::transient(), "REFUSED_STREAM");
}

// TLS.

async fn https_fails(answer: &'static [u8]) -> ClientError {
    let at = server(answer).await.replace("http://", "https://");
    let roots = rustls::RootCertStore::empty();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1();
    let client: Client<_, SomeBody> = Client::builder(TokioExecutor::new()).build(connector.build());
    timeout(LONG, client.request(post(at))).await.expect("it ends").expect_err("it fails")
}

#[tokio::test]
async fn a_handshake_that_fails_comes_before_the_request() {
    assert_class(https_fails(b"").await, UNSENT, "handshake eof");
    assert_class(https_fails(b"HTTP/1.1 400 Bad Request\r\n\r\n").await, UNSENT, "corrupt message");
    // internal_error
    assert_class(https_fails(&[21, 3, 3, 0, 2, 2, 80]).await, UNSENT, "InternalError");
}

#[tokio::test]
async fn a_handshake_that_will_never_succeed_is_permanent() {
    // handshake_failure, protocol_version, unrecognized_name
    for (alert, words) in [(40, "HandshakeFailure"), (70, "ProtocolVersion"), (112, "UnrecognisedName")] {
        let answer = vec![21, 3, 3, 0, 2, 2, alert].leak();
        assert_class(https_fails(answer).await, Class::Permanent, words);
    }
}

#[test]
fn a_certificate_that_is_not_accepted_is_permanent() {
    use rustls::{CertificateError, Error as TlsError, PeerIncompatible, PeerMisbehaved, pki_types::ServerName};
    // As hyper-rustls and tokio-rustls hand them on.
    let handshake = |error| io::Error::other(io::Error::new(io::ErrorKind::InvalidData, error));
    for reason in [CertificateError::UnknownIssuer, CertificateError::Expired, CertificateError::Revoked] {
        let error = TlsError::InvalidCertificate(reason);
        assert_class(handshake(error), Class::Permanent, "invalid peer certificate");
    }
    let name = CertificateError::NotValidForNameContext {
        expected: ServerName::try_from("example.com").unwrap(),
        presented: vec!["other.example".to_owned(); 100],
    };
    assert_class(handshake(TlsError::InvalidCertificate(name)), Class::Permanent, "example.com");
    let versions = TlsError::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13);
    assert_class(handshake(versions), Class::Permanent, "incompatible");
    assert_class(handshake(TlsError::NoApplicationProtocol), Class::Permanent, "protocol");
    assert_class(ServerName::try_from("not a name").unwrap_err(), Class::Permanent, "invalid dns name");
    let misbehaved = TlsError::PeerMisbehaved(PeerMisbehaved::TooManyEmptyFragments);
    assert_class(handshake(misbehaved), Class::transient(), "misbehaved");
}
