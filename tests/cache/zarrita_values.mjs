// Opens the arrays of a zarr store with zarrita, and prints what it read: one JSON object, array name -> dtype, shape,
// dimension names, and the bytes of the values in row-major order as hexadecimal.
//
//   node zarrita_values.mjs ZARRITA_MODULE STORE ARRAY...
import { pathToFileURL } from "node:url";
import { readFile } from "node:fs/promises";

const [module, folder, ...names] = process.argv.slice(2);
// Node has half floats from 24 on; before, their bits are read, which is what is compared.
globalThis.Float16Array ??= Uint16Array;
const zarr = await import(pathToFileURL(module));

// As zarrita's own FileSystemStore, which is a package of its own: a key to bytes, whole or in part.
const bytes = async (key) => {
  try {
    return new Uint8Array(await readFile(folder + key));
  } catch (error) {
    if (error.code === "ENOENT") return undefined;
    throw error;
  }
};
const store = {
  get: bytes,
  getRange: async (key, range) => {
    const whole = await bytes(key);
    if (whole === undefined) return undefined;
    if ("suffixLength" in range) return whole.slice(whole.length - range.suffixLength);
    return whole.slice(range.offset, range.offset + range.length);
  },
};

const found = {};
for (const name of names) {
  const array = await zarr.open.v3(zarr.root(store).resolve(name), { kind: "array" });
  const { data } = await zarr.get(array);
  const view = "byteLength" in data && ArrayBuffer.isView(data) ? data : Uint8Array.from(data);
  found[name] = {
    dtype: array.dtype,
    shape: array.shape,
    dimension_names: array.dimensionNames ?? null,
    hex: Buffer.from(view.buffer, view.byteOffset, view.byteLength).toString("hex"),
  };
}
console.log(JSON.stringify(found));
