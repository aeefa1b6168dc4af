use super::*;
use crate::batch::{Span, Want};

/// Gives back the tokens of its batches as hidden values, and knows none above 9.
struct Echo;

impl Compute for Echo {
    fn compute(&mut self, batch: &Batch<'_>, out: &mut Output) -> Result<(), BatchError> {
        if let Some(&token) = batch.tokens.iter().find(|t| **t > 9) {
            return Err(BatchError::BadToken { token, vocab: 10 });
        }
        out.clear();
        out.hidden.extend(batch.tokens.iter().map(|t| *t as f32));
        out.hidden.extend(batch.spans.iter().flat_map(|span| span.pages.concat()).map(|page| page as f32));
        Ok(())
    }

    fn copy_page(&mut self, _: PageKind, _: u32, _: u32) {}

    fn kv_len(&self) -> usize {
        0
    }

    fn describe(&self) -> String {
        "echo".to_owned()
    }
}

/// Makes a step when it is asked for the second time, and has another thread say so; is lost at the token 0.
struct Device {
    inner: Immediate<Echo>,
    asked: usize,
}

impl Executor for Device {
    fn begin(&mut self, step: Step) -> Result<(), StepError> {
        self.asked = 0;
        match step.with(|batch| batch.tokens.contains(&0)) {
            true => Err(StepError::Lost("unplugged".to_owned())),
            false => self.inner.begin(step),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, out: &mut Output) -> Poll<Result<(), StepError>> {
        self.asked += 1;
        if self.asked > 1 {
            return self.inner.poll(cx, out);
        }
        let waker = cx.waker().clone();
        std::thread::spawn(move || waker.wake());
        Poll::Pending
    }

    fn copy_page(&mut self, _: PageKind, _: u32, _: u32) {}

    fn kv_len(&self) -> usize {
        0
    }

    fn describe(&self) -> String {
        "device".to_owned()
    }
}

/// Two spans over pages of their own.
fn step(tokens: [u32; 2]) -> Step {
    let span =
        |start, pages| Span { start, len: 1, position: 0, rope_len: 1, call: None, pages, state: None };
    let spans = [span(0, [&[7][..], &[]]), span(1, [&[8], &[9]])];
    Step::of(&Batch { tokens: &tokens, spans: &spans, picked: &[1], want: Want::Hidden })
}

#[test]
fn a_step_is_begun_asked_for_and_made_once() {
    let mut e = Immediate::new(Echo);
    let (mut cx, mut out) = (Context::from_waker(Waker::noop()), Output::default());
    let none = StepError::Order("none was begun");
    assert_eq!(e.poll(&mut cx, &mut out), Poll::Ready(Err(none.clone())));
    e.begin(step([1, 2])).unwrap();
    let error = e.begin(step([3, 4])).unwrap_err().to_string();
    assert_eq!(error, "one step at a time: the last one is not made yet");
    assert_eq!(e.poll(&mut cx, &mut out), Poll::Ready(Ok(())));
    assert_eq!(out.hidden, [1.0, 2.0, 7.0, 8.0, 9.0]);
    assert_eq!(e.poll(&mut cx, &mut out), Poll::Ready(Err(none)));
    let error = e.step(step([3, 10]), &mut out).unwrap_err();
    assert_eq!(error, StepError::Batch(BatchError::BadToken { token: 10, vocab: 10 }));
    assert_eq!(e.step(step([3, 4]), &mut out), Ok(()));
}

#[test]
fn whoever_waits_is_woken() {
    let mut e = Device { inner: Immediate::new(Echo), asked: 0 };
    let mut out = Output::default();
    for i in 1..9 {
        e.step(step([i, i + 1]), &mut out).unwrap();
        assert_eq!(out.hidden[..2], [i as f32, i as f32 + 1.0]);
        assert_eq!(e.asked, 2);
    }
    let error = e.step(step([0, 1]), &mut out).unwrap_err().to_string();
    assert_eq!(error, "the device is lost: unplugged");
}
