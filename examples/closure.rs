//! How is a piece of code retried that is no service?

use std::{io, time::Duration};

use tower_tenacity::{RetryPolicy, classify, stop, wait};

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let policy = RetryPolicy::new()
        .stop(stop::after_attempt(4))
        .wait(wait::chain(2, wait::fixed(Duration::from_millis(20))).then(1, wait::fixed(Duration::from_millis(200))))
        .classify(classify::retry_if(classify::on_error(|error: &io::Error| {
            error.kind() == io::ErrorKind::ConnectionRefused
        })));

    let row = policy
        .run(|attempt| async move {
            println!("attempt {}, {:?} waited so far", attempt.number(), attempt.waited());
            if attempt.number() < 4 { Err(io::Error::from(io::ErrorKind::ConnectionRefused)) } else { Ok("row 7") }
        })
        .await?;
    println!("got {row}");
    Ok(())
}
