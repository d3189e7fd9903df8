// A student of texts or images in JavaScript. The same file works in browsers and in Node, so it imports
// nothing: the caller passes ONNX Runtime and the tokenizer library.

const TEXTS_AT_ONCE = 64;
const CHARACTERS_PER_TOKEN = 16; // longer texts are cut before they are tokenized, as in Python
const WORD = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\u200c\\u200d";

/**
 * Open a classifier of texts or images.
 *
 * A row is a text, or an opaque image as ImageData: width, height and data (red, green, blue and alpha).
 *
 * @param {{config: object, tokenizer?: object, model: Uint8Array}} files config.json and, for texts,
 *   tokenizer.json, parsed; and the bytes of onnx/model.onnx.
 * @param {{InferenceSession: Function, Tensor: Function, Tokenizer?: Function}} libraries from onnxruntime-web
 *   or onnxruntime-node, and for texts @huggingface/tokenizers.
 * @returns {Promise<{classes: string[], probabilities: Function, predict: Function, tokens?: Function}>}
 */
export async function openStudent({ config, tokenizer, model }, { InferenceSession, Tensor, Tokenizer }) {
  checkConfig(config);
  const classes = config.targets.classes;
  const isText = config.rows.kind === "text";
  const tokens = isText && textEncoder(tokenizer, config.preprocessor.state.max_length, Tokenizer);
  const inputs = isText ? (texts) => paddedInputs(texts.map(tokens), Tensor) : ([image]) => imageInput(image, Tensor);
  const atOnce = isText ? TEXTS_AT_ONCE : 1; // images may have different sizes
  const session = await InferenceSession.create(model);

  /** Return an array of class probabilities for each row. */
  async function probabilities(rows) {
    const found = [];
    for (let start = 0; start < rows.length; start += atOnce) {
      const feeds = inputs(rows.slice(start, start + atOnce));
      const { data } = (await session.run(feeds, ["probabilities"])).probabilities;
      for (let place = 0; place < data.length; place += classes.length) {
        found.push(Array.from(data.slice(place, place + classes.length)));
      }
    }
    return found;
  }

  /** Return the most likely class of each row, with its probability. */
  async function predict(rows) {
    return (await probabilities(rows)).map((row) => {
      const probability = Math.max(...row);
      return { label: classes[row.indexOf(probability)], probability };
    });
  }

  return { classes, probabilities, predict, ...(isText && { tokens }) };
}

/**
 * Compare a student with the predictions that Python made from the same folder.
 *
 * @param {object} student from openStudent.
 * @param {object} parity onnx/parity.json, parsed: which difference is allowed.
 * @param {object} check what write_check.py wrote, parsed: rows (texts or paths of images), their probabilities,
 *   and tokens of texts.
 * @param {Array} rows the rows as the student reads them: the texts, or the images.
 * @returns {Promise<{agrees: boolean, largest: number, allowed: number, problems: string[]}>}
 */
export async function compareWithPython(student, parity, check, rows) {
  const problems = [];
  if (check.identity !== parity.identity) {
    problems.push("parity.json and the predictions of Python belong to different students");
  }
  // A quantised graph differs from the student in Python; parity.json says by how much.
  const allowed = parity.largest_allowed ?? parity.largest_difference.probabilities + 1e-4;
  const found = await student.probabilities(rows);
  let largest = 0;
  check.rows.forEach((row, place) => {
    const quoted = JSON.stringify(row);
    if (student.tokens && student.tokens(row).join() !== check.tokens[place].join()) {
      problems.push(`other tokens: ${quoted}`);
    }
    const expected = check.probabilities[place];
    const difference = Math.max(...found[place].map((value, column) => Math.abs(value - expected[column])));
    if (!(difference <= allowed)) problems.push(`probabilities differ by ${difference.toPrecision(2)}: ${quoted}`);
    largest = Math.max(largest, difference);
  });
  return { agrees: problems.length === 0, largest, allowed, problems };
}

function checkConfig(config) {
  if (config.format !== "sk-aft student" || config.format_version !== 1) {
    throw new Error("config.json is not that of a student in format version 1: save the student again.");
  }
  const { kind } = config.rows;
  if (config.class !== "AFTClassifier" || !["text", "image"].includes(kind)) {
    throw new Error(
      `The folder holds an ${config.class} of rows of kind "${kind}": expected an AFTClassifier of texts or images.`,
    );
  }
  const step = kind === "text" ? "SubwordTokenizer" : "ImageResizer";
  if (config.preprocessor?.$object !== step) {
    throw new Error(`The student has a preprocessor of its own: expected ${step}, the default.`);
  }
  if (kind === "image" && (config.inputs.dtype !== "uint8" || config.inputs.sizes.n_channels !== 3)) {
    throw new Error("The student was not trained on 8-bit images in colour, which are all that this page reads.");
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

function imageInput({ width, height, data }, Tensor) {
  const colours = new Uint8Array(width * height * 3);
  for (let pixel = 0; pixel < width * height; pixel += 1) {
    colours.set(data.subarray(4 * pixel, 4 * pixel + 3), 3 * pixel);
  }
  return { images: new Tensor("uint8", colours, [1, height, width, 3]) };
}
