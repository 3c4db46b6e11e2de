//! A typed, checked answer from Gemini that survives a rate limit, an overloaded server and wrong answers.
//!
//! `cargo run --example extract --all-features`, with `GEMINI_API_KEY` set for the real thing.

use std::{
    env,
    error::Error,
    fmt,
    io::{self, IsTerminal, Read, Write},
    process::ExitCode,
    time::{Duration, Instant},
};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use tower::{ServiceBuilder, ServiceExt};
use tower_tenacity::{
    Attempt, RetryLayer, StopReason,
    extract::{ExtractError, ExtractLayer, Extracted, Problems, Report},
    gemini::{self, Gemini, GenerateContent},
    hooks::{Delay, Observer},
    testing::{GeminiServer, Reply},
};

const HELP: &str = "\
Extracts an invoice from a text, with Gemini.

usage: extract [--model NAME] [--file PATH | - | TEXT]

  TEXT          the text itself; without it, a text that is built in
  --file PATH   reads the text from a file
  -             reads the text from standard input
  --model NAME  default: gemini-2.5-flash

environment:
  GEMINI_API_KEY or GOOGLE_API_KEY   the key; without one, a stand-in on loopback answers
  GOOGLE_GEMINI_BASE_URL             another server
  NO_COLOR                           no colours
";

const TEXT: &str = "\
From: billing@nordlicht-roasters.example
Subject: Invoice NL-2291

Moin! Here is what we delivered on 3 March 2026 to Café Anker:
12 bags of Harbour Blend at 8.50 each, 3 boxes of paper filters (size 4) at 4.20 a box, and one
repair of the big grinder, 64.00 flat. All in euros, that makes 178.60. Payable within 14 days, please.
";

/// `println!` for a reader who may leave early, as `head` does.
macro_rules! say {
    ($($arg:tt)*) => {
        if writeln!(io::stdout(), $($arg)*).is_err() {
            std::process::exit(0);
        }
    };
}

/// An invoice, as printed.
#[derive(Debug, Deserialize, JsonSchema)]
struct Invoice {
    /// The number of the invoice.
    #[schemars(length(min = 1, max = 40))]
    number: String,
    supplier: String,
    /// Who has to pay, if the text says so.
    customer: Option<String>,
    /// The date of delivery as YYYY-MM-DD, if the text says so.
    delivered: Option<String>,
    currency: Currency,
    lines: Vec<Line>,
    /// The sum of all lines.
    total: f64,
    #[schemars(range(min = 0, max = 365))]
    payable_within_days: Option<u16>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
enum Currency {
    Eur,
    Usd,
    Gbp,
    Other,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Line {
    item: String,
    #[schemars(range(min = 1))]
    quantity: u32,
    unit_price: f64,
}

impl fmt::Display for Invoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (customer, delivered) = (self.customer.as_deref(), self.delivered.as_deref());
        writeln!(f, "invoice {} of {}", self.number, self.supplier)?;
        writeln!(f, "for {}, delivered {}", customer.unwrap_or("?"), delivered.unwrap_or("?"))?;
        for line in &self.lines {
            writeln!(f, "{:>4} × {:<30} {:>8.2}", line.quantity, line.item, line.unit_price)?;
        }
        write!(f, "total {:.2} {:?}", self.total, self.currency)?;
        self.payable_within_days.map_or(Ok(()), |days| write!(f, ", payable within {days} days"))
    }
}

/// What no schema can say.
fn check(invoice: &Invoice) -> Result<(), Problems> {
    let mut problems = Problems::new();
    if invoice.lines.is_empty() {
        problems.add("lines", "there must be at least one");
    }
    let sum: f64 = invoice.lines.iter().map(|line| f64::from(line.quantity) * line.unit_price).sum();
    if (sum - invoice.total).abs() > 0.005 {
        problems.add("total", format!("is {:.2}, but the lines add up to {sum:.2}", invoice.total));
    }
    problems.into_result()
}

/// Says what the transport does, as it happens.
#[derive(Clone)]
struct Narrator(Style);

impl<Res> Observer<Res, gemini::Error> for Narrator {
    fn before_attempt(&self, attempt: &Attempt) {
        say!("{} attempt {} at this question", self.0.dim("→"), attempt.number());
    }

    fn before_sleep(&self, _: &Attempt, outcome: &Result<Res, gemini::Error>, delay: &Delay) {
        if let Err(error) = outcome {
            say!("  {} {}", self.0.red("failed:"), story(error));
        }
        let millis = delay.duration().as_millis();
        match delay.server_hint() {
            Some(hint) => say!("  waiting {millis} ms: the server asked for {} ms", hint.as_millis()),
            None => say!("  waiting {millis} ms: our own backoff"),
        }
    }

    fn gave_up(&self, attempt: &Attempt, outcome: &Result<Res, gemini::Error>, reason: StopReason) {
        if let Err(error) = outcome {
            say!("  {} {}", self.0.red("failed:"), story(error));
        }
        say!("  gave up after attempt {}: {reason}", attempt.number());
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let style = Style(env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && io::stdout().is_terminal());
    let input = match Input::read(env::args().skip(1)) {
        Ok(Some(input)) => input,
        Ok(None) => {
            say!("{}", HELP.trim_end());
            return ExitCode::SUCCESS;
        }
        Err(problem) => {
            eprintln!("{problem}\n\nTry --help.");
            return ExitCode::from(2);
        }
    };
    match run(input, style).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{} {error}", style.red("error:"));
            let mut cause = error.source();
            while let Some(error) = cause {
                eprintln!("  because {error}");
                cause = error.source();
            }
            ExitCode::FAILURE
        }
    }
}

async fn run(input: Input, style: Style) -> Result<(), Box<dyn Error>> {
    let has_key =
        ["GEMINI_API_KEY", "GOOGLE_API_KEY"].iter().any(|name| env::var_os(name).is_some_and(|key| !key.is_empty()));
    // The stand-in lives as long as this variable.
    let stand_in = if has_key { None } else { Some(GeminiServer::start(script()).await?) };
    let client = match &stand_in {
        None => Gemini::from_env()?,
        Some(server) => {
            say!("No GEMINI_API_KEY: a stand-in on {} answers, and misbehaves on purpose.", server.url());
            if env::var_os("GOOGLE_GEMINI_BASE_URL").is_some() {
                say!("GOOGLE_GEMINI_BASE_URL is not used: it needs a key.");
            }
            if !input.built_in {
                say!("It knows the built-in text only, whatever yours says.");
            }
            Gemini::new("no-key-needed")?.base_url(server.url())?
        }
    };

    let layer = ExtractLayer::<Invoice>::new().reasks(2).check(check).on_reask(move |reask| {
        say!("  {} {}", style.red("not what was asked for:"), reask.failure());
        match reask.question() {
            Some(question) => say!("{}\n{}", style.bold("Asking again:"), indented(question)),
            None => say!("{}", style.bold("Asking the same again.")),
        }
    });
    let service = ServiceBuilder::new()
        .layer(layer)
        .layer(RetryLayer::new(gemini::policy().observe(Narrator(style))))
        .service(client);

    say!("\n{}\n{}", style.bold("The text:"), indented(&input.text));
    say!("{}", style.bold(&format!("Asking {}:", input.model)));
    let question = GenerateContent::new(input.model)
        .system("Extract the invoice from the text. Leave out what the text does not say.")
        .text(&input.text)
        .temperature(0.0);
    let begun = Instant::now();
    let outcome: Result<Extracted<Invoice>, ExtractError> = service.oneshot(question).await;
    let (outcome, report) = match outcome {
        Ok(extracted) => {
            let (invoice, report) = extracted.into_parts();
            say!("\n{}\n{}", style.bold("The value:"), indented(&invoice.to_string()));
            (Ok(()), report)
        }
        Err(error) => {
            let report = error.report().clone();
            say!("");
            (Err(error), report)
        }
    };
    summary(&report, begun.elapsed(), stand_in.as_ref());
    Ok(outcome?)
}

fn summary(report: &Report, elapsed: Duration, stand_in: Option<&GeminiServer>) {
    for (number, answer) in (1..).zip(report.answers()) {
        say!("answer {number}: {}", answer.failure().unwrap_or("good"));
    }
    if report.answers().is_empty() {
        say!("no answer in {:.1} s", elapsed.as_secs_f64());
        return;
    }
    let tokens = |count: Option<u64>| count.map_or("unknown".to_owned(), |count| count.to_string());
    let usage = report.usage();
    say!(
        "{} answers in {:.1} s; tokens: {} in, {} out, {} in all",
        report.answers().len(),
        elapsed.as_secs_f64(),
        tokens(usage.prompt),
        tokens(usage.candidates),
        tokens(usage.total())
    );
    if let Some(server) = stand_in {
        say!("(What the stand-in counts as tokens is made up.)");
        say!("{} HTTP requests over {} connections", server.requests().len(), server.connections());
    }
}

/// A bad day: a rate limit, an overloaded server, a broken connection, bad JSON, a sum that is wrong.
fn script() -> [Reply; 6] {
    let invoice = |total: f64| {
        json!({
            "number": "NL-2291",
            "supplier": "Nordlicht Roasters",
            "customer": "Café Anker",
            "delivered": "2026-03-03",
            "currency": "EUR",
            "lines": [
                { "item": "Harbour Blend, bag", "quantity": 12, "unit_price": 8.5 },
                { "item": "Paper filters (size 4), box", "quantity": 3, "unit_price": 4.2 },
                { "item": "Repair of the big grinder", "quantity": 1, "unit_price": 64.0 },
            ],
            "total": total,
            "payable_within_days": 14,
        })
    };
    let good = invoice(178.6);
    let half = good.to_string();
    [
        Reply::rate_limited(Duration::from_millis(1234)),
        Reply::overloaded(),
        Reply::json(good.clone()).truncated(),
        Reply::text(&half[..half.len() / 2]),
        Reply::json(invoice(187.6)),
        Reply::json(good),
    ]
}

struct Input {
    text: String,
    built_in: bool,
    model: String,
}

impl Input {
    /// `None` when help is asked for.
    fn read(mut args: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let mut model = "gemini-2.5-flash".to_owned();
        let mut text = None;
        while let Some(arg) = args.next() {
            let mut value = |what| args.next().ok_or_else(|| format!("{arg} needs {what}"));
            let read = match arg.as_str() {
                "--help" | "-h" => return Ok(None),
                "--model" => {
                    model = value("a name")?;
                    continue;
                }
                "--file" => {
                    let path = value("a path")?;
                    std::fs::read_to_string(&path).map_err(|error| format!("{path} cannot be read: {error}"))?
                }
                "-" => {
                    let mut text = String::new();
                    let read = io::stdin().read_to_string(&mut text);
                    read.map_err(|error| format!("standard input cannot be read: {error}"))?;
                    text
                }
                option if option.starts_with("--") => return Err(format!("there is no option {option}")),
                _ => arg,
            };
            if text.replace(read).is_some() {
                return Err("one text at a time, please".to_owned());
            }
        }
        if text.as_ref().is_some_and(|text| text.trim().is_empty()) {
            return Err("the text is empty".to_owned());
        }
        let built_in = text.is_none();
        Ok(Some(Self { text: text.unwrap_or_else(|| TEXT.to_owned()), built_in, model }))
    }
}

#[derive(Clone, Copy)]
struct Style(bool);

impl Style {
    fn paint(self, code: u8, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
    fn bold(self, text: &str) -> String {
        self.paint(1, text)
    }
    fn dim(self, text: &str) -> String {
        self.paint(2, text)
    }
    fn red(self, text: &str) -> String {
        self.paint(31, text)
    }
}

fn indented(text: &str) -> String {
    text.trim_end().lines().map(|line| format!("  │ {line}\n")).collect()
}

/// The first line of an error and of each of its causes.
fn story(mut error: &dyn Error) -> String {
    let first_line = |error: &dyn Error| {
        let text = error.to_string();
        let line = text.lines().next().unwrap_or_default().trim_end();
        // Google's messages go on for long.
        line.char_indices().nth(120).map_or_else(|| line.to_owned(), |(end, _)| format!("{}…", &line[..end]))
    };
    let mut story = first_line(error);
    while let Some(cause) = error.source() {
        story = format!("{story}: {}", first_line(cause));
        error = cause;
    }
    story
}
