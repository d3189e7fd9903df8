// A student of texts in JavaScript. The same file works in browsers and in Node, so it imports nothing:
// the caller passes ONNX Runtime and the tokenizer library.

const TEXTS_AT_ONCE = 64;
const CHARACTERS_PER_TOKEN = 16; // longer texts are cut before they are tokenized, as in Python
const WORD = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\u200c\\u200d";

/**
 * Open a classifier of texts.
 *
 * @param {{config: object, tokenizer: object, model: Uint8Array}} files config.json and tokenizer.json,
 *   parsed, and the bytes of onnx/model.onnx.
 * @param {{InferenceSession: Function, Tensor: Function, Tokenizer: Function}} libraries from onnxruntime-web
 *   or onnxruntime-node, and @huggingface/tokenizers.
 * @returns {Promise<{classes: string[], tokens: Function, probabilities: Function, predict: Function}>}
 */
export async function openStudent({ config, tokenizer, model }, { InferenceSession, Tensor, Tokenizer }) {
  checkConfig(config);
  const classes = config.targets.classes;
  const tokens = textEncoder(tokenizer, config.preprocessor.state.max_length, Tokenizer);
  const session = await InferenceSession.create(model);

  /** Return an array of class probabilities for each text. */
  async function probabilities(texts) {
    const rows = [];
    for (let start = 0; start < texts.length; start += TEXTS_AT_ONCE) {
      const inputs = paddedInputs(texts.slice(start, start + TEXTS_AT_ONCE).map(tokens), Tensor);
      const { data } = (await session.run(inputs, ["probabilities"])).probabilities;
      for (let place = 0; place < data.length; place += classes.length) {
        rows.push(Array.from(data.slice(place, place + classes.length)));
      }
    }
    return rows;
  }

  /** Return the most likely class of each text, with its probability. */
  async function predict(texts) {
    return (await probabilities(texts)).map((row) => {
      const probability = Math.max(...row);
      return { label: classes[row.indexOf(probability)], probability };
    });
  }

  return { classes, tokens, probabilities, predict };
}

/**
 * Compare a student with the predictions that Python made from the same folder.
 *
 * @param {object} student from openStudent.
 * @param {object} parity onnx/parity.json, parsed: which difference is allowed.
 * @param {object} check what write_check.py wrote, parsed: texts, their tokens and probabilities.
 * @returns {Promise<{agrees: boolean, largest: number, allowed: number, problems: string[]}>}
 */
export async function compareWithPython(student, parity, check) {
  const problems = [];
  if (check.identity !== parity.identity) {
    problems.push("parity.json and the predictions of Python belong to different students");
  }
  // A quantised graph differs from the student in Python; parity.json says by how much.
  const allowed = parity.largest_allowed ?? parity.largest_difference.probabilities + 1e-4;
  const found = await student.probabilities(check.texts);
  let largest = 0;
  check.texts.forEach((text, row) => {
    const quoted = JSON.stringify(text);
    if (student.tokens(text).join() !== check.tokens[row].join()) problems.push(`other tokens: ${quoted}`);
    const differences = found[row].map((value, place) => Math.abs(value - check.probabilities[row][place]));
    const difference = Math.max(...differences);
    if (!(difference <= allowed)) problems.push(`probabilities differ by ${difference.toPrecision(2)}: ${quoted}`);
    largest = Math.max(largest, difference);
  });
  return { agrees: problems.length === 0, largest, allowed, problems };
}

function checkConfig(config) {
  if (config.format !== "sk-aft student" || config.format_version !== 1) {
    throw new Error("config.json is not that of a student in format version 1: save the student again.");
  }
  if (config.class !== "AFTClassifier" || config.rows.kind !== "text") {
    throw new Error(
      `The folder holds an ${config.class} of rows of kind "${config.rows.kind}": expected an AFTClassifier of texts.`,
    );
  }
  if (config.preprocessor?.$object !== "SubwordTokenizer") {
    throw new Error("The student has a preprocessor of its own: expected SubwordTokenizer, the default.");
  }
}

/** Return a function from a text to its tokens, which are those of Python. */
function textEncoder(document, maxLength, Tokenizer) {
  const isOurs = document.added_tokens.length === 0 && document.normalizer?.type === "BertNormalizer";
  const tokenizer = new Tokenizer(isOurs ? withExactWords(document) : document, {});
  return (text) => {
    const read = readable(text, maxLength);
    const { ids } = tokenizer.encode(isOurs ? normalised(read) : read);
    if (ids.length > maxLength && document.post_processor) {
      throw new Error(`A text has ${ids.length} tokens, and the student reads ${maxLength}: shorten it.`);
    }
    return ids.slice(0, maxLength);
  };
}

/** Return the part of a text that is read, in which halves of surrogate pairs are escaped. */
function readable(text, maxLength) {
  const cut = [...text].slice(0, CHARACTERS_PER_TOKEN * maxLength).join("");
  return cut.replace(/\p{Surrogate}/gu, (half) => `\\u${half.charCodeAt(0).toString(16)}`);
}

/** Return a text in lower case, character by character: JavaScript has a rule for a final sigma, Python's library has not. */
function normalised(text) {
  const lower = [...text].map((character) => character.toLowerCase()).join("");
  return lower.replace(/[\u{20000}-\u{2ceaf}\u{2f800}-\u{2fa1f}]/gu, " $& "); // ideographs that the library overlooks
}

/** Return a tokenizer whose words may have accents: in the library, "Whitespace" knows the letters a to z only. */
function withExactWords(document) {
  const words = {
    type: "Split",
    pattern: { Regex: `[${WORD}]+|[^${WORD}\\p{White_Space}]+` },
    behavior: "Removed",
    invert: true,
  };
  const steps = document.pre_tokenizer.pretokenizers.map((step) => (step.type === "Whitespace" ? words : step));
  return { ...document, pre_tokenizer: { ...document.pre_tokenizer, pretokenizers: steps } };
}

function paddedInputs(rows, Tensor) {
  const longest = Math.max(1, ...rows.map((row) => row.length));
  const tokens = new BigInt64Array(rows.length * longest);
  rows.forEach((row, place) => tokens.set(row.map(BigInt), place * longest));
  const lengths = BigInt64Array.from(rows, (row) => BigInt(row.length));
  return {
    tokens: new Tensor("int64", tokens, [rows.length, longest]),
    lengths: new Tensor("int64", lengths, [rows.length]),
  };
}
