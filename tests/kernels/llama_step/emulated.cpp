// The kernels against their scalar twins, and a whole step against itself in pieces, as a program:
// for emulated processors and for the thread sanitizer, which do without Python. Prints what is
// wrong; its status is 0 if nothing is.
#include <cstdio>
#include <random>

#include "../../../kernels/llama_step/llama_step.cpp"

namespace {

std::mt19937 generator(1);
int failures = 0;

std::vector<float> random_numbers(size_t count) {
  std::normal_distribution<float> normal;
  std::vector<float> numbers(count);
  for (float& number : numbers) number = normal(generator);
  return numbers;
}

void expect(bool holds, const char* what, int a, int b, int c) {
  if (holds) return;
  std::printf("%s: %d, %d, %d\n", what, a, b, c);
  ++failures;
}

void check_lanes() {
  for (uint32_t bits = 0; bits < 1 << 16; bits += LANES) {
    fp16 halves[LANES];
    float lanes[LANES];
    for (int i = 0; i < LANES; ++i) halves[i] = fp16(bits + uint32_t(i));
    store(lanes, load_halves(halves));
    for (int i = 0; i < LANES; ++i)
      expect(bits_of(lanes[i]) == bits_of(half_to_float(halves[i])) || std::isnan(lanes[i]), "half",
             int(bits) + i, 0, 0);
  }
  for (float x = -80; x < 80; x += 0.37f) {
    float lanes[LANES];
    store(lanes, exp(broadcast(x)));
    expect(std::fabs(lanes[3] / std::exp(double(x)) - 1) < 8e-6, "exp", int(x), 0, 0);
  }
}

void check_products(Format format, int outputs, int inputs, int count) {
  Matrix matrix(outputs, inputs, format);
  Buffer<float> scratch(size_t(matrix.padded));
  for (int row = 0; row < outputs; ++row) {
    const std::vector<float> weights = random_numbers(size_t(inputs));
    pack_row(matrix, row, Source::F32, reinterpret_cast<const uint8_t*>(weights.data()),
             scratch.data());
  }
  Rows rows;
  rows.prepare(format, inputs, count);
  for (int row = 0; row < count; ++row)
    rows.put_row(row, random_numbers(size_t(inputs)).data(), inputs);
  for (int strip = 0; strip < matrix.tiles() / 2; ++strip) {
    auto compare = [&](int first, int taken, const float* products) {
      for (int r = 0; r < taken; ++r) {
        for (int i = 0; i < STRIP && strip * STRIP + i < outputs; ++i) {
          const double expected = scalar::multiply(matrix, strip * STRIP + i, rows, first + r);
          expect(std::fabs(products[r * STRIP + i] - expected) < 1e-5 * inputs, "product",
                 int(format), inputs, first + r);
        }
      }
    };
    multiply_strip(matrix, strip, rows, 0, count, compare);
  }
}

template <class Element, class Stored = Element>
void check_attention(int dim, int page_size, int length, double largest) {
  const int num_pages = (length + page_size - 1) / page_size;
  Kv<Element, Stored> kv(1, 1, dim, page_size, num_pages);
  std::vector<int32_t> pages(size_t(num_pages), 0);
  for (int i = 0; i < num_pages; ++i) pages[size_t(i)] = num_pages - 1 - i;
  for (int at = 0; at < length; ++at) {
    const int page = pages[size_t(at / page_size)];
    kv.write_key(0, page, 0, at % page_size, random_numbers(size_t(dim)).data());
    kv.write_value(0, page, 0, at % page_size, random_numbers(size_t(dim)).data());
  }
  std::vector<float> query = random_numbers(size_t(dim)), out(query.size()), expected(query.size());
  std::vector<Element> row(size_t(dim), Element(0));
  for (int d = 0; d < dim; ++d) {
    if constexpr (sizeof(Element) == 2) {
      row[size_t(d)] = to_bf16(query[size_t(d)]);
      query[size_t(d)] = to_float(to_bf16(query[size_t(d)]));
    } else {
      row[size_t(d)] = query[size_t(d)];
    }
  }
  const Range range{length / 3, length - 1};
  const float scale = 1 / std::sqrt(float(dim));
  float top = MASKED, sum = 0, part_top, part_sum;
  std::vector<float> part(size_t(dim), 0.0f);
  Buffer<Element> tiles;
  Loader<Element, Stored> loader(kv, 0, 0, pages.data(), tiles);
  for (int split = range.first / SPLIT; split <= range.last / SPLIT; ++split) {
    attend_split(loader, row.data(), &range, 1, split, dim, scale,
                 Part{part.data(), &part_top, &part_sum});
    merge(out.data(), top, sum, part.data(), part_top, part_sum, dim);
  }
  scalar::attend(kv, 0, 0, pages.data(), query.data(), range, scale, expected.data());
  for (int d = 0; d < dim; ++d)
    expect(std::fabs(out[size_t(d)] / sum - expected[size_t(d)]) < largest, "attention", dim,
           page_size, length);
}

// A model of one layer with random weights.
ModelBase* random_model(const Shape& shape, Format format) {
  ModelBase* model = sapwood_new(&shape);
  const auto fill = [&](int layer, int kind, int rows) {
    const Size size = size_of(shape, kind);
    if (kind != UP_ROWS) sapwood_define(model, layer, kind, size.outputs, size.inputs, int(format));
    const std::vector<float> values = random_numbers(size_t(rows) * size_t(size.inputs));
    sapwood_pack(model, layer, kind, 0, rows, int(Source::F32),
                 reinterpret_cast<const uint8_t*>(values.data()), size.inputs * 4);
  };
  const std::vector<float> ones(size_t(shape.hidden), 1.0f), few(size_t(shape.head_dim / 2), 0.1f);
  fill(0, QKV_ROWS, size_of(shape, QKV_ROWS).outputs);
  fill(0, OUTPUT_ROWS, shape.hidden);
  fill(0, GATE_ROWS, shape.inner);
  fill(0, UP_ROWS, shape.inner);
  fill(0, DOWN_ROWS, shape.hidden);
  fill(-1, EMBEDDING_ROWS, shape.vocab);
  for (int kind : {INPUT_NORM, MLP_NORM}) sapwood_vector(model, 0, kind, shape.hidden, ones.data());
  sapwood_vector(model, -1, FINAL_NORM, shape.hidden, ones.data());
  sapwood_vector(model, -1, FREQUENCIES, shape.head_dim / 2, few.data());
  return model;
}

// The last token's logits, computed in steps of `chunk` tokens.
std::vector<float> last_logits(ModelBase* model, int length, int chunk) {
  std::vector<float> logits(size_t(model->shape.vocab));
  std::vector<int32_t> pages(size_t(model->shape.num_pages), 0);
  for (size_t i = 0; i < pages.size(); ++i) pages[i] = int32_t(i);
  for (int32_t start = 0; start < length; start += chunk) {
    const int32_t count = std::min(chunk, length - start), row = count - 1, table_row = 0;
    std::vector<int32_t> ids(size_t(count), 0);
    for (int i = 0; i < count; ++i) ids[size_t(i)] = (start + i) * 7 % model->shape.vocab;
    float* target = logits.data();
    int32_t best;
    float best_logit;
    StepArgs args{1, count, 1, int32_t(pages.size())};
    args.token_ids = ids.data();
    args.starts = &start;
    args.lengths = &count;
    args.table_rows = &table_row;
    args.page_table = pages.data();
    args.rows = &row;
    args.logits = &target;
    args.best = &best;
    args.best_logit = &best_logit;
    expect(sapwood_step(model, &args) == 0, sapwood_error(), start, count, 0);
  }
  return logits;
}

void check_step(Format format, int kv_format) {
  const Shape shape{1, 72, 6, 2, 16, 40, 67, 16, 12, 0, kv_format, 3, 1e-5f, 1.0f};
  std::unique_ptr<ModelBase> model(random_model(shape, format));
  const std::vector<float> whole = last_logits(model.get(), 150, 150);
  for (int chunk : {1, 7, 64})
    expect(last_logits(model.get(), 150, chunk) == whole, "step", int(format), kv_format, chunk);
  for (float logit : whole) expect(std::isfinite(logit), "finite", int(format), kv_format, 0);
}

}  // namespace

int main() {
  check_lanes();
  for (int format = 0; format < 4; ++format)
    for (int count : {1, 2, 3, 4, 5, 9, 23}) {
      check_products(Format(format), 33, 96, count);
      if (format < 2) check_products(Format(format), 17, 48, count);
    }
  for (int page_size : {1, 4, 16, 64})
    for (int dim : {16, 80, 128}) {
      check_attention<float>(dim, page_size, 200, 1e-5);
      check_attention<bf16>(dim, page_size, 200, 2e-2);
      check_attention<bf16, int8_t>(dim, page_size, 200, 2e-2);
    }
  for (int format = 0; format < 4; ++format)
    for (int kv_format : {0, 1, 2}) check_step(Format(format), kv_format);
  std::printf("%d failures\n", failures);
  return failures != 0;
}
