// How files come in, and how what was read goes out.

import { hasCamera, takePhoto } from "./dialogs.js";

const $ = (selector) => document.querySelector(selector);

export function choose() {
  $("#file").click();
}

// onFiles: gets a list of at least one. onError: gets what the camera said.
export function listen({ onFiles, onError }) {
  const take = (files) => files.length && onFiles([...files]);
  for (const id of ["#file", "#capture"]) {
    $(id).addEventListener("change", (event) => {
      take(event.target.files);
      // The same file again is a change, too.
      event.target.value = "";
    });
  }
  $("#choose").addEventListener("click", choose);
  $("#photograph").addEventListener("click", async () => {
    // A telephone's own camera is better than what a page can make of it.
    if (!hasCamera() || matchMedia("(pointer: coarse)").matches) return $("#capture").click();
    try {
      const photo = await takePhoto();
      if (photo) onFiles([photo]);
    } catch (error) {
      onError(error);
    }
  });
  document.addEventListener("paste", (event) => take(event.clipboardData.files));
  const carries = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragover", (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    $("#over").hidden = false;
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) $("#over").hidden = true;
  });
  addEventListener("drop", (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    $("#over").hidden = true;
    take(event.dataTransfer.files);
  });
}

// An address of the picture where the browser can show all of it, else null.
export async function shown(file) {
  // Of a document Safari shows the first page.
  if (/(pdf|tiff?)$/i.test(file.type || file.name)) return null;
  const url = URL.createObjectURL(file);
  const image = new Image();
  image.src = url;
  try {
    await image.decode();
    return url;
  } catch {
    URL.revokeObjectURL(url);
    return null;
  }
}

export function fromBase64(encoded) {
  const bytes = Uint8Array.from(atob(encoded), (character) => character.charCodeAt(0));
  return new File([bytes], "page.jpg", { type: "image/jpeg" });
}

// Whether it was copied.
export async function copy(words) {
  try {
    await navigator.clipboard.writeText(words);
    return true;
  } catch {
    // Only pages from https and from this machine have a clipboard.
    const area = document.createElement("textarea");
    area.value = words;
    area.className = "away";
    document.body.append(area);
    const focused = document.activeElement;
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    focused?.focus();
    return copied;
  }
}

export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
