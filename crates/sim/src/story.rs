//! The story of one run, for people: what happened, who believed what, which rule fired.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

/// Lines that are kept: the last ones.
const LINES_MAX: usize = 20_000;

/// Collects what everybody says during `tell`, with the simulated time and the machine.
pub fn listen<T>(tell: impl FnOnce() -> T) -> (T, Vec<String>) {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let subscriber = tracing_subscriber::registry().with(Teller { lines: Arc::clone(&lines), began: Mutex::new(None) });
    let told = tracing::subscriber::with_default(subscriber, tell);
    let lines = std::mem::take(&mut *lines.lock().unwrap_or_else(PoisonError::into_inner));
    (told, lines)
}

struct Teller {
    lines: Arc<Mutex<Vec<String>>>,
    began: Mutex<Option<Instant>>,
}

/// The machine that a span belongs to.
struct Machine(String);

#[derive(Default)]
struct Words {
    message: String,
    machine: Option<String>,
    fields: String,
}

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a String cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            "machine" => {
                self.machine = Some(format!("{value:?}").trim_matches('"').to_owned());
                Ok(())
            }
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Teller {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut words = Words::default();
        attributes.record(&mut words);
        if let (Some(machine), Some(span)) = (words.machine, context.span(id)) {
            span.extensions_mut().insert(Machine(machine));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        if *event.metadata().level() > Level::INFO {
            return;
        }
        let mut words = Words::default();
        event.record(&mut words);
        let on = context
            .event_scope(event)
            .into_iter()
            .flatten()
            .find_map(|span| span.extensions().get::<Machine>().map(|machine| machine.0.clone()));
        let machine = words.machine.or(on).unwrap_or_else(|| "-".to_owned());
        let now = Instant::now();
        let began = *self.began.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(now);
        let seconds = now.duration_since(began).as_secs_f64();
        let sign = match *event.metadata().level() {
            Level::ERROR => "!!",
            Level::WARN => " !",
            _ => "  ",
        };
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LINES_MAX {
            lines.remove(0);
        }
        lines.push(format!("{seconds:>10.3} {sign} {machine:<4} {}{}", words.message, words.fields));
    }
}
