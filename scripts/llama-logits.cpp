// llama.cpp's view of a GGUF file, for scripts/compare-llama-cpp:
//
//     llama-logits MODEL.gguf PROMPT N LOGITS.f32
//
// Prints the prompt's token ids on a line and then the text of N greedy tokens; writes the logits after the prompt.
#include "llama.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

static void need(bool ok, const char *what) {
    if (!ok) {
        fprintf(stderr, "llama-logits: %s\n", what);
        exit(1);
    }
}

int main(int argc, char **argv) {
    need(argc == 5, "expected MODEL.gguf PROMPT N LOGITS.f32");
    const char *prompt = argv[2];
    int more = atoi(argv[3]);
    llama_log_set(
        [](ggml_log_level level, const char *text, void *) {
            if (level == GGML_LOG_LEVEL_ERROR) fputs(text, stderr);
        },
        nullptr);
    ggml_backend_load_all();

    llama_model *model = llama_model_load_from_file(argv[1], llama_model_default_params());
    need(model, "the model does not load");
    const llama_vocab *vocab = llama_model_get_vocab(model);
    std::vector<llama_token> tokens(strlen(prompt) + 8);
    int n = llama_tokenize(vocab, prompt, strlen(prompt), tokens.data(), tokens.size(), true, true);
    need(n > 0, "the prompt has no tokens");
    tokens.resize(n);

    // Keys and values whole, attention step by step: as little as can be is rounded.
    llama_context_params params = llama_context_default_params();
    params.n_ctx = params.n_batch = params.n_ubatch = std::max(512, n + more);
    params.n_threads = params.n_threads_batch = std::max(1u, std::thread::hardware_concurrency());
    params.type_k = params.type_v = GGML_TYPE_F32;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    llama_context *context = llama_init_from_model(model, params);
    need(context, "there is no context");
    need(llama_decode(context, llama_batch_get_one(tokens.data(), n)) == 0, "decoding failed");

    int size = llama_vocab_n_tokens(vocab);
    const float *logits = llama_get_logits_ith(context, -1);
    FILE *file = fopen(argv[4], "wb");
    need(file && fwrite(logits, sizeof(float), size, file) == size_t(size) && fclose(file) == 0, "no logits written");
    for (int i = 0; i < n; i++) printf("%d%c", tokens[i], i + 1 < n ? ',' : '\n');

    for (int i = 0; i < more; i++) {
        llama_token token = std::max_element(logits, logits + size) - logits;
        if (llama_vocab_is_eog(vocab, token)) break;
        char piece[512];
        int len = llama_token_to_piece(vocab, token, piece, sizeof piece, 0, true);
        fwrite(piece, 1, std::max(len, 0), stdout);
        need(llama_decode(context, llama_batch_get_one(&token, 1)) == 0, "decoding failed");
        logits = llama_get_logits_ith(context, -1);
    }
}
