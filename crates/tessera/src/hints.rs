//! What to do about an error of the libraries, which say what is wrong and leave advice to the program.

use tessera_compute::backend::LoadError;
use tessera_engine::decoder::DecoderError;
use tessera_engine::failure::{Failure, FailureKind};
use tessera_engine::generate::GenerateError;
use tessera_engine::model::{ModelError, StepError};
use tessera_engine::plan::PlanError;
use tessera_engine::request::SubmitError;
use tessera_engine::text::TextError;
use tessera_engine::tokenizer::TokenizerError;
use tessera_hub::HubError;
use tessera_weights::arch::ArchError;
use tessera_weights::bytes::Changed;
use tessera_weights::chat_config::ChatConfigError;
use tessera_weights::config::ConfigError;
use tessera_weights::convert::ConvertError;
use tessera_weights::folder::FolderError;
use tessera_weights::model::FolderModelError;

const REFETCH: &str = "fetch this file again (`tessera repair` does); `tessera verify` lists everything that is wrong with the folder";
const SHAPES: &str =
    "the shards or the manifest are another model's: fetch the folder again, or convert the checkpoint again";
const CONTEXT: &str =
    "shorten the prompt, or raise --context if the model allows it (`tessera inspect` says)";

const CHANGED: &str = "`tessera verify` tells whether the folder is whole now; a model in use is replaced by renaming folders, not \
     by writing over its files";

/// The hint for one error of a chain, if there is one.
pub fn of(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    if let Some(e) = error.downcast_ref::<HubError>() {
        return e.hint();
    }
    let hint = None
        .or_else(|| error.downcast_ref::<Changed>().map(|_| CHANGED))
        .or_else(|| {
            error.downcast_ref::<StepError>().filter(|e| matches!(e, StepError::Changed(_))).map(|_| CHANGED)
        })
        .or_else(|| error.downcast_ref().and_then(of_conversion))
        .or_else(|| error.downcast_ref().and_then(of_folder))
        .or_else(|| error.downcast_ref().and_then(of_folder_model))
        .or_else(|| error.downcast_ref().and_then(of_model))
        .or_else(|| error.downcast_ref().and_then(of_text))
        .or_else(|| error.downcast_ref().and_then(of_tokenizer))
        .or_else(|| error.downcast_ref().and_then(of_generate))
        .or_else(|| error.downcast_ref().and_then(of_chat_config));
    hint.map(str::to_owned)
}

fn of_folder(error: &FolderError) -> Option<&'static str> {
    Some(match error {
        FolderError::MissingShard { .. }
        | FolderError::TruncatedShard { .. }
        | FolderError::LongShard { .. }
        | FolderError::Html { .. }
        | FolderError::Manifest { .. } => REFETCH,
        FolderError::WrongShape { .. }
        | FolderError::WrongDType { .. }
        | FolderError::Swapped { .. }
        | FolderError::WrongForm { .. }
        | FolderError::MissingTensor { .. } => SHAPES,
        FolderError::UnknownScheme { .. } => {
            "name it in mlc-chat-config.json (quantization), or fetch the folder again"
        }
        FolderError::NoManifest { .. } | FolderError::NotFound { .. } => {
            "give the folder that holds the manifest and the shards"
        }
        // These say in their own words what to do.
        _ => return None,
    })
}

fn of_conversion(error: &ConvertError) -> Option<&'static str> {
    match error {
        ConvertError::OtherHead { .. } => Some(
            "if the head is meant, set tie_word_embeddings to false in config.json; if not, fetch the checkpoint again",
        ),
        _ => None,
    }
}

fn of_folder_model(error: &FolderModelError) -> Option<&'static str> {
    match error {
        FolderModelError::Folder(e) => of_folder(e),
        FolderModelError::ChatConfig { source, .. } => of_chat_config(source),
        FolderModelError::Config { source: ConfigError::Arch(ArchError::Unknown { .. }), .. } => Some(
            "correct model_type in the config if it is misspelt; this version knows no other architectures",
        ),
        FolderModelError::Config { .. } => Some("correct the config, or fetch it again"),
        FolderModelError::File { .. } => Some("fetch this file again"),
        FolderModelError::Scheme { .. } | FolderModelError::OtherScheme { .. } => {
            Some("correct quantization in mlc-chat-config.json, or convert the original checkpoint again")
        }
    }
}

fn of_chat_config(error: &ChatConfigError) -> Option<&'static str> {
    Some(match error {
        ChatConfigError::UnknownTemplate { .. } => "correct conv_template, or leave it out",
        _ => "correct mlc-chat-config.json, or fetch it again",
    })
}

fn of_model(error: &ModelError) -> Option<&'static str> {
    Some(match error {
        ModelError::Decoder(DecoderError::Folder(e)) => return of_folder(e),
        ModelError::Decoder(DecoderError::Sizes(_)) => "correct the config, or fetch it again",
        ModelError::Decoder(DecoderError::Part { .. } | DecoderError::Together { .. }) => return None,
        ModelError::Decoder(DecoderError::Unused { .. }) => {
            "the config and the tensors are not of one model: compare them with `tessera inspect --tensors`"
        }
        ModelError::Changed(_) => CHANGED,
        ModelError::Plan(PlanError::Context { .. }) => "leave --context out to use the model's own",
        ModelError::Plan(PlanError::Memory { .. }) => {
            "give a shorter --context, fewer sequences at once, `--kv q8` on the CPU, or close other programs; \
             --memory SIZE is taken in place of what is free"
        }
        ModelError::Plan(PlanError::Device { .. }) => "give a shorter --context, or --backend cpu",
        ModelError::Load(LoadError::Kernels { .. }) => "without --kernels the fastest are used",
        ModelError::Load(LoadError::Memory { .. }) => "give a shorter --context",
        ModelError::Load(LoadError::Threads { .. }) => {
            "give fewer --threads, or let this user or container have more (`ulimit -u`, `ulimit -v`, pids.max)"
        }
        ModelError::Load(_) => return None,
    })
}

fn of_text(error: &TextError) -> Option<&'static str> {
    match error {
        TextError::Tokenizer(e) => of_tokenizer(e),
        TextError::Template(_) => None,
        TextError::Vocabulary { .. } => Some("the tokenizer is another model's: fetch this model's own"),
        TextError::File(_) => Some("fetch this file again, or remove it"),
        TextError::Defaults(_) => Some("correct the field, or remove it: the usual default is then taken"),
        TextError::NoTemplate(_) => Some(
            "correct conv_template in mlc-chat-config.json, take the Hugging Face template with --template \
             jinja, or give the prompt as it is with --raw",
        ),
    }
}

fn of_tokenizer(error: &TokenizerError) -> Option<&'static str> {
    Some(match error {
        TokenizerError::Missing { .. } => "put the model's tokenizer.json or tokenizer.model into the folder",
        TokenizerError::Encode { .. } => return None,
        _ => "fetch this file again",
    })
}

fn of_generate(error: &GenerateError) -> Option<&'static str> {
    Some(match error {
        GenerateError::Refused(SubmitError::EmptyPrompt) => "give some text",
        GenerateError::Refused(SubmitError::PromptTooLong { .. })
        | GenerateError::Failed(Failure::Step(StepError::Context { .. })) => CONTEXT,
        GenerateError::Failed(Failure::Step(StepError::Changed(_))) => CHANGED,
        GenerateError::Failed(failure) if failure.kind() == FailureKind::Model => {
            "`tessera verify` tells whether the weights are damaged"
        }
        _ => return None,
    })
}
