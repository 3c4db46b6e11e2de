//! How does a reverse proxy repeat an upload that it streams on, when the server behind it hangs up half-way?

use std::{error::Error, net::SocketAddr, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::put,
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};
use tower::{ServiceBuilder, ServiceExt};
use tower_tenacity::{
    Retry, RetryLayer, RetryPolicy,
    body::{ReplayBody, ReplayBodyLayer, ReplayBodyService},
    policy::http::HttpPolicy,
};

type Upstream = ReplayBodyService<Retry<HttpPolicy, Client<HttpConnector, ReplayBody<Body>>>>;

async fn proxy(State((upstream, to)): State<(Upstream, SocketAddr)>, mut request: Request) -> Response {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let Ok(uri) = format!("http://{to}{path}").parse::<Uri>() else { return StatusCode::BAD_REQUEST.into_response() };
    *request.uri_mut() = uri;
    request.headers_mut().remove(header::HOST);
    match upstream.oneshot(request).await {
        Ok(response) => response.map(Body::new),
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    // What of a body goes by is kept, up to 64 KiB. A longer one is streamed on all the same, but sent once.
    let upstream = ServiceBuilder::new()
        .layer(ReplayBodyLayer::new(64 * 1024))
        .layer(RetryLayer::new(RetryPolicy::http()))
        .service(Client::builder(TokioExecutor::new()).build_http());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let at = listener.local_addr()?;
    let app = Router::new().fallback(proxy).with_state((upstream, archive().await?));
    tokio::spawn(async move { axum::serve(listener, app).await });

    let mut caller = TcpStream::connect(at).await?;
    let head = "PUT /letter HTTP/1.1\r\nhost: proxy\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n";
    for piece in [head, "5\r\nDear \r\n", "5\r\nMolly\r\n", "c\r\n, I am well.\r\n", "0\r\n\r\n"] {
        caller.write_all(piece.as_bytes()).await?;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut answer = String::new();
    caller.read_to_string(&mut answer).await?;
    println!("the caller: {} … {}", answer.lines().next().unwrap_or("?"), answer.lines().last().unwrap_or("?"));
    Ok(())
}

/// Hangs up on its first caller, in the middle of the upload.
async fn archive() -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        let mut first = BufReader::new(listener.accept().await?.0).lines();
        while first.next_line().await?.is_some_and(|line| line != "Molly") {}
        println!("the archive: got as far as Molly, and hangs up");
        drop(first);
        let archive = |letter: String| async move { format!("archived: {letter:?}") };
        axum::serve(listener, Router::new().route("/letter", put(archive))).await
    });
    Ok(address)
}
