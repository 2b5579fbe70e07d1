// The C face of the model step: made, filled with weights, stepped and freed through ctypes.
//
// Owns: the check of everything that comes from outside. A call that fails returns a negative number
// and leaves its reason in `sapwood_error`, per thread; nothing throws across this line.
#include <cstdio>
#include <new>

#include "model.h"
#include "step.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

using namespace sapwood;

namespace {

thread_local char error_text[256] = "";

int fail(const char* format, long a = 0, long b = 0, long c = 0) {
  std::snprintf(error_text, sizeof error_text, format, a, b, c);
  return -1;
}

// Weight matrices by number; GATE and UP share one matrix, row by row in turns of 16.
enum Kind { QKV_ROWS, OUTPUT_ROWS, GATE_ROWS, UP_ROWS, DOWN_ROWS, EMBEDDING_ROWS, HEAD_ROWS };
enum VectorKind { INPUT_NORM, MLP_NORM, Q_NORM, K_NORM, FINAL_NORM, FREQUENCIES };

Matrix* find(ModelBase& model, int layer, int kind) {
  if (kind == EMBEDDING_ROWS) return &model.embedding;
  if (kind == HEAD_ROWS) return &model.head;
  if (layer < 0 || layer >= int(model.layers.size())) return nullptr;
  Layer& l = model.layers[size_t(layer)];
  switch (kind) {
    case QKV_ROWS: return &l.qkv;
    case OUTPUT_ROWS: return &l.output;
    case GATE_ROWS:
    case UP_ROWS: return &l.gate_up;
    case DOWN_ROWS: return &l.down;
    default: return nullptr;
  }
}

int place(int kind, int row) {
  if (kind != GATE_ROWS && kind != UP_ROWS) return row;
  return row / TILE * STRIP + row % TILE + (kind == UP_ROWS ? TILE : 0);
}

struct Size {
  int outputs, inputs;
};

Size size_of(const Shape& s, int kind) {
  const int queries = s.heads * s.head_dim, keys = s.kv_heads * s.head_dim;
  switch (kind) {
    case QKV_ROWS: return {queries + 2 * keys, s.hidden};
    case OUTPUT_ROWS: return {s.hidden, queries};
    case GATE_ROWS:
    case UP_ROWS: return {2 * round_up(s.inner, STRIP), s.hidden};
    case DOWN_ROWS: return {s.hidden, s.inner};
    default: return {s.vocab, s.hidden};
  }
}

// Are rows first .. first + count - 1 among those that a checkpoint has for this matrix?
int check_rows(const Shape& shape, int kind, int first, int count) {
  const bool halved = kind == GATE_ROWS || kind == UP_ROWS;
  const int rows = halved ? shape.inner : size_of(shape, kind).outputs;
  if (first < 0 || count < 1 || first > rows - count)
    return fail("rows %ld .. %ld of %ld", first, int64_t(first) + count - 1, rows);
  return 0;
}

int check_shape(const Shape& s) {
  if (s.layers < 1 || s.hidden < 1 || s.heads < 1 || s.inner < 1 || s.vocab < 1)
    return fail("layers, hidden, heads, inner and vocab must be positive");
  if (s.head_dim < 16 || s.head_dim % 16) return fail("head_dim %ld is no multiple of 16", s.head_dim);
  if (s.kv_heads < 1 || s.heads % s.kv_heads)
    return fail("%ld heads do not share %ld kv heads evenly", s.heads, s.kv_heads);
  if (s.page_size < 1 || (s.page_size & (s.page_size - 1)))
    return fail("page_size %ld is no power of two", s.page_size);
  if (s.num_pages < 1) return fail("num_pages %ld", s.num_pages);
  if (s.window < 0) return fail("window %ld", s.window);
  if (s.kv_format < 0 || s.kv_format > 2) return fail("there is no KV format %ld", s.kv_format);
  return 0;
}

// Everything that a step reads is there.
int check_parts(const ModelBase& model) {
  for (size_t index = 0; index < model.layers.size(); ++index) {
    const Layer& l = model.layers[index];
    const Matrix* matrices[] = {&l.qkv, &l.output, &l.gate_up, &l.down};
    const int kinds[] = {QKV_ROWS, OUTPUT_ROWS, GATE_ROWS, DOWN_ROWS};
    for (int i = 0; i < 4; ++i)
      if (!matrices[i]->outputs) return fail("layer %ld has no matrix %ld", long(index), kinds[i]);
    if (!l.input_norm.size() || !l.mlp_norm.size()) return fail("layer %ld has no norm", long(index));
  }
  if (!model.embedding.outputs || !model.norm.size() || !model.frequencies.size())
    return fail("the model has no embedding, final norm or frequencies");
  return 0;
}

// Everything that a step will use as an index is inside its bounds.
int check_step(const Shape& shape, const StepArgs& a) {
  if (a.num_spans < 1 || a.num_tokens < 1) return fail("an empty step");
  int64_t tokens = 0;
  for (int s = 0; s < a.num_spans; ++s) {
    if (a.lengths[s] < 1 || a.starts[s] < 0 || a.table_rows[s] < 0)
      return fail("span %ld: start %ld, length %ld", s, a.starts[s], a.lengths[s]);
    const int64_t end = int64_t(a.starts[s]) + a.lengths[s];
    const int64_t pages = (end + shape.page_size - 1) / shape.page_size;
    if (pages > a.table_width) return fail("span %ld needs %ld pages of a row", s, long(pages));
    const int32_t* row = a.page_table + size_t(a.table_rows[s]) * size_t(a.table_width);
    for (int64_t p = 0; p < pages; ++p)
      if (row[p] < 0 || row[p] >= shape.num_pages)
        return fail("span %ld, entry %ld: there is no page %ld", s, long(p), row[p]);
    tokens += a.lengths[s];
  }
  if (tokens != a.num_tokens) return fail("%ld tokens in spans of %ld", a.num_tokens, long(tokens));
  for (int i = 0; i < a.num_tokens; ++i)
    if (a.token_ids[i] < 0 || a.token_ids[i] >= shape.vocab)
      return fail("token %ld: there is no id %ld", i, a.token_ids[i]);
  for (int r = 0; r < a.num_rows; ++r)
    if (a.rows[r] < 0 || a.rows[r] >= a.num_tokens || (r && a.rows[r] <= a.rows[r - 1]))
      return fail("row %ld of logits is token %ld of %ld", r, a.rows[r], a.num_tokens);
  return 0;
}

template <class F>
int guarded(F&& f) {
  try {
    return f();
  } catch (const std::bad_alloc&) {
    return fail("out of memory");
  } catch (const std::exception& error) {
    std::snprintf(error_text, sizeof error_text, "%s", error.what());
    return -1;
  }
}

}  // namespace

EXPORT const char* sapwood_error() { return error_text; }

EXPORT ModelBase* sapwood_new(const Shape* shape) {
  if (check_shape(*shape)) return nullptr;
#if defined(SAPWOOD_TIER_AMX)
  if (!amx::permitted()) {
    fail("the system refuses the AMX registers");
    return nullptr;
  }
#endif
  ModelBase* model = nullptr;
  guarded([&] {
    switch (KvFormat(shape->kv_format)) {
      case KvFormat::BFLOAT16: model = new Model<bf16, bf16>(*shape); break;
      case KvFormat::FLOAT32: model = new Model<float, float>(*shape); break;
      case KvFormat::INT8: model = new Model<bf16, int8_t>(*shape); break;
    }
    model->layers.resize(size_t(shape->layers));
    return 0;
  });
  return model;
}

EXPORT void sapwood_free(ModelBase* model) { delete model; }

EXPORT int sapwood_define(ModelBase* model, int layer, int kind, int outputs, int inputs,
                          int format) {
  Matrix* matrix = find(*model, layer, kind);
  if (!matrix) return fail("there is no matrix %ld in layer %ld", kind, layer);
  if (format < 0 || format > 3) return fail("there is no format %ld", format);
  const Size size = size_of(model->shape, kind);
  if (outputs != size.outputs || inputs != size.inputs)
    return fail("matrix %ld has %ld outputs of %ld inputs", kind, size.outputs, size.inputs);
  return guarded([&] {
    *matrix = Matrix(outputs, inputs, Format(format), &model->arena);
    return 0;
  });
}

// Rows first .. first + count - 1 of a matrix, from a checkpoint's rows of `row_bytes` each.
EXPORT int sapwood_pack(ModelBase* model, int layer, int kind, int first, int count, int source,
                        const uint8_t* data, int64_t row_bytes) {
  Matrix* matrix = find(*model, layer, kind);
  if (!matrix || !matrix->outputs) return fail("matrix %ld of layer %ld is undefined", kind, layer);
  if (source < 0 || source > 5) return fail("there is no source %ld", source);
  if (check_rows(model->shape, kind, first, count)) return -1;
  if (size_t(row_bytes) != bytes_of_row(Source(source), matrix->inputs))
    return fail("a row of %ld inputs is not %ld bytes", matrix->inputs, long(row_bytes));
  if (source >= 3 && matrix->inputs % GROUP) return fail("%ld inputs in groups of 32", matrix->inputs);
  return guarded([&] {
    constexpr int step = 64;  // whole tiles, so that no two threads write one
    const int start = first / TILE * TILE;
    Work work;
    model->pool.run([&](Member me) {
      Buffer<float> scratch(size_t(matrix->padded));
      work.run(me, (first + count - start + step - 1) / step, [&](int unit) {
        const int from = std::max(first, start + unit * step);
        const int to = std::min(first + count, start + (unit + 1) * step);
        for (int row = from; row < to; ++row)
          pack_row(*matrix, place(kind, row), Source(source),
                   data + size_t(row - first) * size_t(row_bytes), scratch.data());
      });
    });
    return 0;
  });
}

EXPORT int sapwood_bias(ModelBase* model, int layer, int kind, int first, int count,
                        const float* values) {
  Matrix* matrix = find(*model, layer, kind);
  if (!matrix || !matrix->outputs) return fail("matrix %ld of layer %ld is undefined", kind, layer);
  if (check_rows(model->shape, kind, first, count)) return -1;
  return guarded([&] {
    matrix->bias.reserve(size_t(matrix->tiles()) * TILE, &model->arena);
    for (int i = 0; i < count; ++i) matrix->bias[size_t(place(kind, first + i))] = values[i];
    return 0;
  });
}

EXPORT int sapwood_vector(ModelBase* model, int layer, int kind, int count, const float* values) {
  const bool inside = layer >= 0 && layer < int(model->layers.size());
  if (kind < FINAL_NORM && !inside) return fail("there is no layer %ld", layer);
  Layer* l = inside ? &model->layers[size_t(layer)] : nullptr;
  const Shape& s = model->shape;
  Buffer<float>* targets[] = {l ? &l->input_norm : nullptr, l ? &l->mlp_norm : nullptr,
                              l ? &l->q_norm : nullptr,     l ? &l->k_norm : nullptr,
                              &model->norm,                 &model->frequencies};
  const int sizes[] = {s.hidden, s.hidden, s.head_dim, s.head_dim, s.hidden, s.head_dim / 2};
  if (kind < 0 || kind > FREQUENCIES || count != sizes[kind])
    return fail("vector %ld of %ld numbers", kind, count);
  return guarded([&] {
    targets[kind]->reserve(size_t(count), &model->arena);
    std::memcpy(targets[kind]->data(), values, size_t(count) * 4);
    return 0;
  });
}

EXPORT int sapwood_step(ModelBase* model, const StepArgs* args) {
  if (check_parts(*model) || check_step(model->shape, *args)) return -1;
  return guarded([&] {
    model->step(*args);
    return 0;
  });
}

EXPORT int sapwood_copy_page(ModelBase* model, int source, int target) {
  const int pages = model->shape.num_pages;
  if (source < 0 || source >= pages || target < 0 || target >= pages)
    return fail("page %ld -> %ld of %ld", source, target, pages);
  if (source != target) model->copy_page(source, target);
  return 0;
}

// Seconds of each phase since the last call; [8].
EXPORT void sapwood_seconds(ModelBase* model, double* seconds) {
  for (int phase = 0; phase < NUM_PHASES; ++phase) {
    seconds[phase] = model->seconds[phase];
    model->seconds[phase] = 0;
  }
}

EXPORT int64_t sapwood_weight_bytes(ModelBase* model) {
  size_t bytes = model->embedding.bytes() + model->head.bytes();
  for (const Layer& l : model->layers)
    bytes += l.qkv.bytes() + l.output.bytes() + l.gate_up.bytes() + l.down.bytes();
  return int64_t(bytes);
}

EXPORT int64_t sapwood_page_bytes(const Shape* s) {
  const auto bytes = [&](auto kv) {
    return int64_t(decltype(kv)::bytes_of_page(s->layers, s->kv_heads, s->head_dim, s->page_size));
  };
  switch (KvFormat(s->kv_format)) {
    case KvFormat::BFLOAT16: return bytes(Kv<bf16>());
    case KvFormat::FLOAT32: return bytes(Kv<float>());
    case KvFormat::INT8: return bytes(Kv<bf16, int8_t>());
  }
  return 0;
}
