// What the page says, in English and Chinese.

export const TEXTS = {
  en: {
    skip: "Skip to the text",
    language: "Language",
    choose: "Choose a file",
    photograph: "Take a photo",
    shoot: "Take it",
    sample: "Try the sample",
    drop: "Drop an image or a PDF here",
    drop_more: "or paste one, choose a file, take a photo",
    let_go: "Let go to read it",
    promise: "It is read on this server and goes nowhere else. An answer never depends on what else is being read.",
    stage: "Page",
    thumbnails: "Pages of the document",
    page_number: "Page {number}",
    page_found: "Page {number}, {count} found",
    progress: "Progress",
    sending: "Reading {name} …",
    reading: "Reading page {number} of {count} …",
    writing: "Writing {name} …",
    cancel: "Cancel",
    cancelled: "Cancelled",
    done: "Done in {seconds} s. Lines: {lines}",
    done_pages: "Done in {seconds} s. Pages: {pages}, lines: {lines}",
    blank: "There is no text on this page.",
    one_only: "One file at a time: the first one is read.",
    legend: "How sure the recognition is",
    good: "sure",
    fair: "less sure",
    low: "unsure",
    zoom: "Size",
    zoom_in: "Larger",
    zoom_out: "Smaller",
    zoom_fit: "Fit",
    panel: "Text",
    lines: "Lines in reading order",
    search: "Search the text",
    found: "{count} of {total}",
    nothing_yet: "What is read appears here, line by line. Point at a line to see where it stands.",
    copy: "Copy",
    copied: "Copied: {text}",
    copied_all: "The whole text is copied",
    copy_failed: "The browser does not allow copying here.",
    copy_all: "Copy all",
    copy_line: "Copy line {number}",
    download: "Download",
    searchable: "Searchable PDF",
    downloaded: "{name} is ready",
    score: "{score} % sure",
    picture: "Page {number} of {name}",
    live: "Server",
    up: "running",
    down: "not reachable",
    queue: "Queue",
    batch: "Batch size",
    throughput: "Pages a second",
    latency: "Latency, median / 99 %",
    seconds: "{value} s",
    fifty: "Fire 50 requests",
    fifty_title: "Sends this page 50 times at once and compares the answers",
    fifty_alone: "Reading the page once, alone …",
    fifty_running: "{done} of {total} answers, {same} equal to the lone one …",
    fifty_equal: "All {total} answers are equal to the one read alone, to the last bit. {seconds} s, {most} at a time.",
    fifty_unequal: "{other} of {total} answers differ from the one read alone.",
    fifty_failed: "{failed} of {total} requests failed: {why}",
    fifty_again: "{count} were refused by a full queue at first, and sent again.",
    go_on: "Continue",
    ask_key: "This server needs a key",
    ask_key_label: "API key",
    ask_key_again: "This key was not accepted",
    ask_password: "This PDF is encrypted",
    ask_password_label: "Password",
    again: "Try again",
    another: "Choose another file",
    no_camera: "The camera cannot be used: {why}",
    request: "Request {id}",
    Offline: "The server cannot be reached",
    Offline_hint: "It may have been stopped, or the network is gone.",
    UnreadableFile: "The file cannot be opened",
    UnreadableFile_hint: "It was moved or changed, or it is a folder. Choose it again.",
    UnsupportedMediaType: "This file cannot be read",
    UnsupportedMediaType_hint: "Give a JPEG, PNG, WebP, TIFF, BMP, GIF or PDF.",
    InvalidImageError: "The file is damaged",
    InvalidImageError_hint: "It is cut short or broken. Save it anew, or give another one.",
    PasswordError: "This PDF is encrypted",
    PasswordError_hint: "It can be read with its password.",
    UploadTooLarge: "The file is too large",
    UploadTooLarge_hint: "This server takes no files of that size.",
    UploadTimeout: "The upload took too long",
    UploadTimeout_hint: "The network is slow or was interrupted.",
    TooManyPixels: "The image is too large",
    TooManyPixels_hint: "It has more pixels than this server takes. Make it smaller.",
    TooManyPages: "The document has too many pages",
    TooManyPages_hint: "Split it, or ask whoever runs this server for more.",
    OverloadedError: "The server is busy",
    OverloadedError_hint: "Its queue is full. In a few seconds there is room again.",
    TooManyRequests: "Too many requests at once",
    TooManyRequests_hint: "Wait for one of them to be answered.",
    OcrTimeoutError: "It took too long",
    OcrTimeoutError_hint: "The server gave up. When it is less busy it may be in time.",
    ShuttingDown: "The server is shutting down",
    ShuttingDown_hint: "Try again in a moment.",
    Unauthorized: "This server needs a key",
    Unauthorized_hint: "Without it nothing is read.",
    other: "That did not work",
    other_hint: "The server said:",
  },
  zh: {
    skip: "跳到文字",
    language: "语言",
    choose: "选择文件",
    photograph: "拍照",
    shoot: "拍摄",
    sample: "试试示例",
    drop: "把图片或 PDF 拖到这里",
    drop_more: "也可以粘贴、选择文件或拍照",
    let_go: "松开即开始识别",
    promise: "只在这台服务器上识别，不会传到别处。无论同时在识别什么，结果都不会变。",
    stage: "页面",
    thumbnails: "文档的各页",
    page_number: "第 {number} 页",
    page_found: "第 {number} 页，找到 {count} 处",
    progress: "进度",
    sending: "正在识别 {name} …",
    reading: "正在识别第 {number} 页，共 {count} 页 …",
    writing: "正在生成 {name} …",
    cancel: "取消",
    cancelled: "已取消",
    done: "识别出 {lines} 行，用时 {seconds} 秒",
    done_pages: "{pages} 页共识别出 {lines} 行，用时 {seconds} 秒",
    blank: "这一页没有文字。",
    one_only: "一次只能识别一个文件，已选第一个。",
    legend: "置信度",
    good: "置信度高",
    fair: "置信度中",
    low: "置信度低",
    zoom: "大小",
    zoom_in: "放大",
    zoom_out: "缩小",
    zoom_fit: "适合",
    panel: "文字",
    lines: "按阅读顺序排列的各行",
    search: "搜索文字",
    found: "{count} / {total}",
    nothing_yet: "识别结果会逐行显示在这里。指向一行即可看到它的位置。",
    copy: "复制",
    copied: "已复制：{text}",
    copied_all: "已复制全部文字",
    copy_failed: "浏览器不允许在此复制。",
    copy_all: "复制全部",
    copy_line: "复制第 {number} 行",
    download: "下载",
    searchable: "可搜索的 PDF",
    downloaded: "{name} 已就绪",
    score: "置信度 {score} %",
    picture: "{name}，第 {number} 页",
    live: "服务器",
    up: "运行中",
    down: "无法连接",
    queue: "队列",
    batch: "批大小",
    throughput: "每秒页数",
    latency: "延迟（中位数 / 99 %）",
    seconds: "{value} 秒",
    fifty: "发送 50 个请求",
    fifty_title: "把这一页同时发送 50 次并比较结果",
    fifty_alone: "先单独识别一次 …",
    fifty_running: "已有 {done} / {total} 个结果，{same} 个与单独识别的相同 …",
    fifty_equal: "{total} 个结果与单独识别的完全相同，一位不差。用时 {seconds} 秒，同时 {most} 个。",
    fifty_unequal: "{total} 个结果中有 {other} 个与单独识别的不同。",
    fifty_failed: "{total} 个请求中有 {failed} 个失败：{why}",
    fifty_again: "其中 {count} 次因队列已满被拒，随后重发。",
    go_on: "继续",
    ask_key: "此服务器需要密钥",
    ask_key_label: "API 密钥",
    ask_key_again: "密钥不正确",
    ask_password: "此 PDF 已加密",
    ask_password_label: "密码",
    again: "重试",
    another: "选择其他文件",
    no_camera: "无法使用摄像头：{why}",
    request: "请求 {id}",
    Offline: "无法连接服务器",
    Offline_hint: "服务器可能已停止，或网络已断开。",
    UnreadableFile: "无法打开文件",
    UnreadableFile_hint: "文件已被移动或修改，或者是文件夹。请重新选择。",
    UnsupportedMediaType: "无法识别此文件",
    UnsupportedMediaType_hint: "请提供 JPEG、PNG、WebP、TIFF、BMP、GIF 或 PDF。",
    InvalidImageError: "文件已损坏",
    InvalidImageError_hint: "文件不完整或有错误。请重新保存，或换一个文件。",
    PasswordError: "此 PDF 已加密",
    PasswordError_hint: "输入密码后即可识别。",
    UploadTooLarge: "文件太大",
    UploadTooLarge_hint: "此服务器不接受这么大的文件。",
    UploadTimeout: "上传用时太长",
    UploadTimeout_hint: "网络太慢或曾中断。",
    TooManyPixels: "图片太大",
    TooManyPixels_hint: "像素数超过此服务器的上限。请缩小后再试。",
    TooManyPages: "文档页数太多",
    TooManyPages_hint: "请拆分文档，或请管理员提高上限。",
    OverloadedError: "服务器正忙",
    OverloadedError_hint: "队列已满，几秒后就会有空位。",
    TooManyRequests: "同时的请求太多",
    TooManyRequests_hint: "请等其中一个完成。",
    OcrTimeoutError: "用时太长",
    OcrTimeoutError_hint: "服务器已放弃。等它不那么忙时再试。",
    ShuttingDown: "服务器正在关闭",
    ShuttingDown_hint: "请稍后再试。",
    Unauthorized: "此服务器需要密钥",
    Unauthorized_hint: "没有密钥无法识别。",
    other: "操作没有成功",
    other_hint: "服务器的回答：",
  },
};

const STORED = "threadsafe-ocr-language";
let current = stored() ?? (/^zh\b/i.test(navigator.language) ? "zh" : "en");

function stored() {
  const language = localStorage.getItem(STORED);
  return language in TEXTS ? language : null;
}

// A key's sentence in the language of the page, with {name} replaced by values.name.
export function text(key, values = {}) {
  return TEXTS[current][key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

// The key of the sentence that says what went wrong.
export function kindOf(error) {
  if (error.kind === "InvalidImageError" && error.status === 413) return "TooManyPixels";
  return error.kind in TEXTS[current] ? error.kind : "other";
}

export function number(value, digits = 1) {
  return value.toLocaleString(current === "zh" ? "zh-CN" : "en", { maximumFractionDigits: digits, minimumFractionDigits: digits });
}

// The sentence as what the element says, in another language too.
export function put(element, key, values) {
  element.dataset.text = key;
  element.values = values;
  element.textContent = text(key, values);
}

// Tells everybody who has made sentences to make them anew.
export function setLanguage(language) {
  current = language;
  localStorage.setItem(STORED, language);
  translate();
  document.dispatchEvent(new Event("language"));
}

export function translate() {
  document.documentElement.lang = current === "zh" ? "zh-CN" : "en";
  for (const element of document.querySelectorAll("[data-text]")) put(element, element.dataset.text, element.values);
  for (const element of document.querySelectorAll("[data-label]")) element.setAttribute("aria-label", text(element.dataset.label));
  for (const element of document.querySelectorAll("[data-title]")) element.title = text(element.dataset.title);
  for (const element of document.querySelectorAll("[data-hint]")) element.placeholder = text(element.dataset.hint);
  for (const button of document.querySelectorAll("[data-language]")) {
    button.setAttribute("aria-pressed", String(button.dataset.language === current));
  }
}
