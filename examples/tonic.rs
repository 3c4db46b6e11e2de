//! How is a tonic client retried? A server on loopback is busy twice, and says when to come back.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use bytes::{Buf, BufMut};
use tonic::{
    Request, Response, Status,
    body::Body,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::MetadataValue,
    transport::{Channel, Server, server::TcpIncoming},
};
use tower::{BoxError, ServiceBuilder, service_fn};
use tower_tenacity::{
    Attempt, RetryLayer, RetryPolicy,
    body::{ReplayBody, ReplayBodyLayer},
    hooks::Delay,
};

type Outcome = Result<http::Response<Body>, tonic::transport::Error>;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let channel = Channel::from_shared(format!("http://{}", start_server()?))?.connect_lazy();

    let policy = RetryPolicy::grpc().before_sleep(|attempt: &Attempt, _: &Outcome, delay: &Delay| {
        println!("attempt {}: busy, the server asks for {:?}", attempt.number(), delay.server_hint());
    });
    let channel = ServiceBuilder::new()
        .layer(ReplayBodyLayer::new(64 * 1024)) // tonic's bodies are streams: what was sent of one is kept
        .layer(RetryLayer::new(policy))
        .map_request(|request: http::Request<ReplayBody<Body>>| request.map(Body::new))
        .service(channel);

    // What a generated `GreeterClient::new(channel)` does.
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await?;
    let mut request = Request::new("Ada".to_owned());
    request.set_timeout(Duration::from_secs(10)); // for all attempts together
    let path = http::uri::PathAndQuery::from_static("/greeter.Greeter/Greet");
    let answer = client.unary(request, path, Text).await?;
    println!("the answer: {}", answer.into_inner());
    Ok(())
}

fn start_server() -> Result<SocketAddr, BoxError> {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let greet = service_fn(|request: Request<String>| async move {
        if CALLS.fetch_add(1, Relaxed) == 2 {
            return Ok(Response::new(format!("hello {}", request.into_inner())));
        }
        let mut status = Status::unavailable("busy");
        status.metadata_mut().insert("grpc-retry-pushback-ms", MetadataValue::from_static("150"));
        Err(status)
    });
    let service = service_fn(move |request: http::Request<Body>| async move {
        Ok::<_, BoxError>(tonic::server::Grpc::new(Text).unary(greet, request).await)
    });
    let incoming = TcpIncoming::bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let address = incoming.local_addr()?;
    tokio::spawn(Server::builder().serve_with_incoming(service, incoming));
    Ok(address)
}

/// Messages as plain text, so that this needs no generated code.
#[derive(Clone, Copy)]
struct Text;

impl Codec for Text {
    type Encode = String;
    type Decode = String;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Text {
    type Item = String;
    type Error = Status;

    fn encode(&mut self, text: String, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(text.as_bytes());
        Ok(())
    }
}

impl Decoder for Text {
    type Item = String;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<String>, Status> {
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        String::from_utf8(bytes.into()).map(Some).map_err(|_| Status::invalid_argument("not text"))
    }
}
