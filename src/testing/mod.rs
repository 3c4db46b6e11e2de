//! What users test their own stacks with.
//!
//! Two stand-ins, one for each end of a stack:
//!
//! | stand-in | plays | for testing |
//! |---|---|---|
//! | [`Script`] | outcomes of a tower service, in memory | policies and layers, under paused time |
//! | [`GeminiServer`] | answers, errors and broken connections, on a loopback socket | whole clients, in real time |
//!
//! Both keep a log of what they were asked, and both fail loudly when they are asked more often than the
//! test expected.
//!
//! # A scripted service
//!
//! Under paused time (`start_paused`, tokio's `test-util` feature) the [`Script`] tells exactly how long
//! a policy waited, and the test takes no time at all:
//!
//! ```
//! use std::time::Duration;
//! use tower::{Service, ServiceExt};
//! use tower_tenacity::testing::Script;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let script = Script::new([Err("busy"), Ok("fine")]);
//! let mut service = script.clone(); // what would go into a stack
//!
//! // This is what a retry layer does.
//! assert_eq!(service.ready().await.unwrap().call(1).await, Err("busy"));
//! tokio::time::sleep(Duration::from_secs(2)).await;
//! assert_eq!(service.ready().await.unwrap().call(2).await, Ok("fine"));
//!
//! assert_eq!(script.requests(), [1, 2]);
//! assert_eq!(script.delays(), [Duration::from_secs(2)]);
//! # }
//! ```
//!
//! # A Gemini server
//!
//! [`GeminiServer`] speaks the wire format of `generateContent`; [`Reply`] has a constructor for each
//! thing that goes wrong in the field. Sockets live in real time: under paused time a timeout fires
//! before the peer answers, so assert order and counts here, not durations.
//!
//! ```
//! use std::time::Duration;
//! use tower_tenacity::testing::{GeminiServer, Reply};
//!
//! # use std::{io, io::{Read, Write}};
//! # // A client in a few lines: the server's answer to `prompt`, head and all.
//! # async fn ask(server: &GeminiServer, prompt: &'static str) -> io::Result<String> {
//! #     let addr = server.addr();
//! #     let asking = tokio::task::spawn_blocking(move || {
//! #         let mut stream = std::net::TcpStream::connect(addr)?;
//! #         let body = format!(r#"{{"contents":[{{"parts":[{{"text":"{prompt}"}}]}}]}}"#);
//! #         write!(stream, "POST /v1beta/models/gemini-2.5-flash:generateContent HTTP/1.1\r\nhost: localhost\r\n\
//! #             x-goog-api-key: secret\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())?;
//! #         let mut answer = String::new();
//! #         stream.read_to_string(&mut answer)?;
//! #         Ok(answer)
//! #     });
//! #     asking.await.expect("the client does not panic")
//! # }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> io::Result<()> {
//! let server = GeminiServer::start([
//!     Reply::rate_limited(Duration::from_millis(2217)),
//!     Reply::reset(),
//!     Reply::text("Jason is 25"),
//! ])
//! .await?;
//!
//! // `ask` stands for the client under test, pointed at `server.url()`.
//! assert!(ask(&server, "How old is Jason?").await?.contains("Please retry in 2.217s."));
//! assert!(ask(&server, "How old is Jason?").await.is_err());
//! assert!(ask(&server, "How old is Jason?").await?.contains("Jason is 25"));
//!
//! let requests = server.requests();
//! assert_eq!(requests.len(), 3);
//! assert_eq!(requests[2].json()["contents"][0]["parts"][0]["text"], "How old is Jason?");
//! assert_eq!(requests[2].api_key(), Some("secret"));
//! assert!(!format!("{requests:?}").contains("secret"));
//! # Ok(())
//! # }
//! ```

mod reply;
mod script;
mod server;

pub use reply::Reply;
pub use script::{Script, ScriptFuture, Step};
pub use server::{GeminiServer, RecordedRequest};
