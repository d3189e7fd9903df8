// node predict.js FOLDER TEXT...
import { readFile } from "node:fs/promises";
import { Tokenizer } from "@huggingface/tokenizers";
import { InferenceSession, Tensor } from "onnxruntime-node";
import { openStudent } from "../browser/student.js";

const [folder, ...texts] = process.argv.slice(2);
const json = async (name) => JSON.parse(await readFile(`${folder}/${name}`, "utf8"));
const files = { config: await json("config.json"), tokenizer: await json("tokenizer.json") };
files.model = await readFile(`${folder}/onnx/model.onnx`);
const student = await openStudent(files, { InferenceSession, Tensor, Tokenizer });
for (const { label, probability } of await student.predict(texts)) console.log(label, probability);
