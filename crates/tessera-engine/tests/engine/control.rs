//! Refusals, cancellation, shutdown.

use crate::common::*;
use std::time::Duration;
use tessera_engine::engine::{
    Engine, EngineOptions, EngineRequest, FailureKind, FinishReason, StartError, SubmitError,
};

fn refusal(engine: &Engine, request: EngineRequest) -> SubmitError {
    let (sink, events) = sink();
    let error = engine.submit(request, sink).err().expect("a refusal");
    assert!(events.try_recv().is_err());
    error
}

#[test]
fn what_cannot_run_is_refused_at_once() {
    let engine = engine(&cpu(1), 256, 1, EngineOptions::default());
    assert_eq!(engine.context(), 256);
    assert_eq!(refusal(&engine, greedy(vec![], 1)), SubmitError::EmptyPrompt);
    let too_long = SubmitError::PromptTooLong { prompt: 256, context: 256 };
    assert_eq!(refusal(&engine, greedy(tokens(1, 256), 1)), too_long);
    assert_eq!(too_long.to_string(), "the prompt has 256 tokens, the context holds 256");
    assert_eq!(
        refusal(&engine, greedy(vec![3, 259], 1)).to_string(),
        "prompt: token 259 does not exist, the vocabulary has 259"
    );
    let mut request = greedy(vec![3], 1);
    request.sampling.logit_bias = vec![(300, 1.0)];
    assert!(matches!(refusal(&engine, request), SubmitError::BadToken { field: "logit_bias", .. }));
    let request = EngineRequest { logprobs: Some(21), ..greedy(vec![3], 1) };
    assert_eq!(refusal(&engine, request), SubmitError::Logprobs { asked: 21, limit: 20 });
    let request = EngineRequest { embed: true, prompt_logprobs: true, ..greedy(vec![3], 1) };
    assert_eq!(refusal(&engine, request), SubmitError::Embed { field: "prompt_logprobs" });
    let mut request = greedy(vec![3], 1);
    request.sampling.temperature = f32::NAN;
    assert!(matches!(refusal(&engine, request), SubmitError::Sampling(_)));
    // A whole context can be embedded or scored.
    let request = EngineRequest { prompt: tokens(1, 256), embed: true, ..EngineRequest::default() };
    assert!(answer(&engine, request).embedding.is_some());
    assert_eq!(answer(&engine, greedy(tokens(1, 256), 0)).reason(), FinishReason::Length);

    for options in [
        EngineOptions { max_sequences: 0, ..EngineOptions::default() },
        EngineOptions { max_batch_tokens: 0, ..EngineOptions::default() },
        EngineOptions { max_batch_tokens: 15, max_sequences: 16, ..EngineOptions::default() },
    ] {
        let error = Engine::start(model(&cpu(1), 64, 1), tokenizer(), options).err().unwrap();
        assert!(matches!(error, StartError::Option { .. }));
    }
}

#[test]
fn a_full_queue_refuses_and_goes_on() {
    let options = EngineOptions { max_sequences: 2, queue: 3, ..EngineOptions::default() };
    let engine = engine(&cpu(1), 1024, 2, options);
    let streams: Vec<Stream> = (0..5).map(|i| Stream::start(&engine, greedy(tokens(i, 10), 200))).collect();
    for _ in 0..100 {
        assert!(matches!(refusal(&engine, greedy(vec![3], 1)), SubmitError::QueueFull { limit: 3, .. }));
    }
    let lengths: Vec<usize> = streams.into_iter().map(|s| s.finish().tokens.len()).collect();
    assert_eq!(lengths, [200; 5]);
    assert_eq!(answer(&engine, greedy(vec![3], 1)).tokens.len(), 1);
}

#[test]
fn a_dropped_ticket_cancels_wherever_the_request_is() {
    let options = EngineOptions { max_sequences: 2, max_batch_tokens: 2, ..EngineOptions::default() };
    let engine = engine(&cpu(1), 1024, 2, options);
    // In the queue, behind two that run.
    let mut running: Vec<Stream> =
        (0..2).map(|i| Stream::start(&engine, greedy(tokens(i, 100), 900))).collect();
    let mut queued = Stream::start(&engine, greedy(tokens(7, 10), 10));
    queued.cancel();
    let queued = queued.finish();
    assert_eq!((queued.reason(), queued.started), (FinishReason::Cancelled, None));
    assert_eq!(queued.usage().prompt_tokens, 10);
    // While it decodes.
    while running[0].answer.tokens.len() < 3 {
        running[0].next();
    }
    running.iter_mut().for_each(Stream::cancel);
    for stream in running {
        let answer = stream.finish();
        assert_eq!(answer.reason(), FinishReason::Cancelled);
        assert!(answer.tokens.len() < 900);
    }
    assert_idle(&engine);
    // In its prefill, which takes 400 steps here.
    let mut prefill = Stream::start(&engine, greedy(tokens(9, 800), 10));
    prefill.next();
    prefill.cancel();
    let prefill = prefill.finish();
    assert_eq!((prefill.reason(), prefill.tokens.len()), (FinishReason::Cancelled, 0));
    assert_idle(&engine);
    let stats = engine.stats();
    assert_eq!((stats.cancelled, stats.failed), (4, 0));
}

#[test]
fn a_shutdown_lets_go_on_what_it_can_and_fails_the_rest() {
    let start = || {
        let options = EngineOptions { max_sequences: 1, ..EngineOptions::default() };
        engine(&cpu(1), 4096, 1, options)
    };
    let engine = start();
    let streams: Vec<Stream> = (0..3).map(|i| Stream::start(&engine, greedy(tokens(i, 10), 20))).collect();
    let other = engine.clone();
    engine.shutdown(Duration::from_secs(100));
    for stream in streams {
        assert_eq!(stream.finish().tokens.len(), 20);
    }
    assert_eq!(refusal(&other, greedy(vec![3], 1)), SubmitError::Closed);

    let engine = start();
    let mut long = Stream::start(&engine, greedy(tokens(1, 10), 4000));
    let queued = Stream::start(&engine, greedy(tokens(2, 10), 4000));
    while long.answer.tokens.is_empty() {
        long.next();
    }
    engine.shutdown(Duration::ZERO);
    for stream in [long, queued] {
        assert_eq!(stream.finish().failed.unwrap().1, FailureKind::Shutdown);
    }

    // Without a word: the last handle goes.
    let engine = start();
    let long = Stream::start(&engine, greedy(tokens(1, 10), 4000));
    drop(engine);
    assert_eq!(long.finish().failed.unwrap().1, FailureKind::Shutdown);
}

#[test]
fn flows_take_turns() {
    let options = EngineOptions { max_sequences: 1, ..EngineOptions::default() };
    let engine = engine(&cpu(1), 4096, 1, options);
    let mut blocker = Stream::start(&engine, greedy(tokens(1, 10), 4000));
    while blocker.answer.tokens.is_empty() {
        blocker.next();
    }
    let order = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let flows = [1, 1, 1, 2];
    let tickets: Vec<_> = (0..4)
        .map(|i| {
            let order = order.clone();
            let request = EngineRequest { flow: flows[i], ..greedy(tokens(9, 3), 1) };
            let sink = Box::new(move |event| {
                if let tessera_engine::engine::EngineEvent::Started { .. } = event {
                    order.lock().unwrap().push(i);
                }
            });
            engine.submit(request, sink).unwrap()
        })
        .collect();
    blocker.cancel();
    wait_for("the four", || order.lock().unwrap().len() == 4);
    assert_eq!(*order.lock().unwrap(), [0, 3, 1, 2]);
    drop(tickets);
}
